// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
)

// Bounds of what sidecars report of their state.
const (
	maxEjected    = 256    // endpoints in a report
	maxReporters  = 32_768 // sidecars that leave out endpoints
	maxAllEjected = 262_144
	// Of a caller, under whatever names of nodes.
	maxCallerEjected   = 512
	maxCallerReporters = 128
	defaultReported    = 30 * time.Second
	maxReported        = 5 * time.Minute
)

// Ejected is an endpoint that a sidecar leaves out, as it has reported.
type Ejected struct {
	Node, Service     string // of the sidecar
	Cluster, Endpoint string
	Detector          string // Envoy's name
	Ejections         uint32 // of the endpoint so far
	Since, Until      time.Time
}

// ejections are the last reports of sidecars that leave out endpoints. The zero value
// is ready.
type ejections struct {
	mu sync.Mutex
	// Guarded by mu.
	byNode   map[string]nodeReport
	accounts map[string]*reporterShare // of callers that have reports in byNode
	all      int                       // endpoints in byNode
	swept    time.Time                 // when stale reports of all were looked for
}

// nodeReport is not changed once it is in the map.
type nodeReport struct {
	account string
	list    []Ejected // by cluster and endpoint
	until   time.Time
}

// reporterShare is what a caller has reported.
type reporterShare struct {
	nodes     map[string]struct{}
	endpoints int
}

// put takes a report in place of the node's last. One beyond the bounds is refused, and
// leaves the last as it is.
func (e *ejections) put(now time.Time, account, node, service string, r *sidecarv1.StateReport) error {
	valid := defaultReported
	if d := r.GetValid(); d != nil && d.IsValid() && d.AsDuration() > 0 {
		valid = min(d.AsDuration(), maxReported)
	}
	list := make([]Ejected, 0, len(r.GetEjected()))
	for _, x := range r.GetEjected() {
		list = append(list, Ejected{
			Node: node, Service: service, Cluster: clipText(x.GetCluster()), Endpoint: clipText(x.GetEndpoint()), Detector: clipText(x.GetDetector()),
			Ejections: x.GetEjections(), Since: timeOf(x.GetSince()), Until: timeOf(x.GetUntil()),
		})
	}
	slices.SortFunc(list, func(a, b Ejected) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(list) == 0 {
		e.drop(node)
		return nil
	}
	if e.full(account, node, len(list)) != nil {
		e.expireOf(now, account)
		if now.Sub(e.swept) >= time.Second { // who is refused in a loop does not make others wait
			e.expire(now)
		}
	}
	if err := e.full(account, node, len(list)); err != nil {
		return err
	}
	e.drop(node)
	if e.byNode == nil {
		e.byNode, e.accounts = map[string]nodeReport{}, map[string]*reporterShare{}
	}
	share := e.accounts[account]
	if share == nil {
		share = &reporterShare{nodes: map[string]struct{}{}}
		e.accounts[account] = share
	}
	share.nodes[node] = struct{}{}
	share.endpoints += len(list)
	e.byNode[node] = nodeReport{account, list, now.Add(valid)}
	e.all += len(list)
	return nil
}

// full says which bound a report of n endpoints would break, in place of the node's last.
func (e *ejections) full(account, node string, n int) error {
	old, replaces := e.byNode[node]
	reporters, all := len(e.byNode), e.all-len(old.list)
	if replaces {
		reporters--
	}
	own, ownReporters := 0, 0
	if share := e.accounts[account]; share != nil {
		own, ownReporters = share.endpoints, len(share.nodes)
		if replaces && old.account == account {
			own, ownReporters = own-len(old.list), ownReporters-1
		}
	}
	if own+n > maxCallerEjected || ownReporters >= maxCallerReporters {
		return fmt.Errorf("ejected: %d endpoints, and %d other sidecars of this caller have reported %d; the limits are %d endpoints and %d sidecars: more are not shown",
			n, ownReporters, own, maxCallerEjected, maxCallerReporters)
	}
	if all+n > maxAllEjected || reporters >= maxReporters {
		return fmt.Errorf("ejected: %d endpoints, and %d sidecars have reported %d, that is the limit: more are not shown", n, reporters, all)
	}
	return nil
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

func (e *ejections) drop(node string) {
	r, ok := e.byNode[node]
	if !ok {
		return
	}
	delete(e.byNode, node)
	e.all -= len(r.list)
	share := e.accounts[r.account]
	delete(share.nodes, node)
	if share.endpoints -= len(r.list); len(share.nodes) == 0 {
		delete(e.accounts, r.account)
	}
}

// expireOf forgets a caller's reports that are stale.
func (e *ejections) expireOf(now time.Time, account string) {
	if share := e.accounts[account]; share != nil {
		for node := range share.nodes {
			if now.After(e.byNode[node].until) {
				e.drop(node)
			}
		}
	}
}

// expire forgets reports that are stale.
func (e *ejections) expire(now time.Time) {
	e.swept = now
	for node, r := range e.byNode {
		if now.After(r.until) {
			e.drop(node)
		}
	}
}

// reports are those that are not stale, in no order.
func (e *ejections) reports(now time.Time) (list []nodeReport, endpoints int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expire(now)
	return slices.Collect(maps.Values(e.byNode)), e.all
}

// Ejected lists the endpoints that sidecars leave out now, by sidecar, cluster and
// endpoint. What a sidecar has not repeated in time is not in it. Reports go on
// meanwhile: only which ones there are is looked up under their lock.
func (s *Service) Ejected() []Ejected {
	reports, endpoints := s.ejections.reports(s.now())
	slices.SortFunc(reports, func(a, b nodeReport) int { return cmp.Compare(a.list[0].Node, b.list[0].Node) })
	list := make([]Ejected, 0, endpoints)
	for _, r := range reports {
		list = append(list, r.list...)
	}
	return list
}
