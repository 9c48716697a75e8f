// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
)

// Bounds of what sidecars report of their state.
const (
	maxEjected      = 256    // endpoints in a report
	maxReporters    = 32_768 // sidecars that leave out endpoints
	maxAllEjected   = 262_144
	defaultReported = 30 * time.Second
	maxReported     = 5 * time.Minute
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
	byNode map[string]nodeReport
	all    int // endpoints in byNode
}

type nodeReport struct {
	list  []Ejected
	until time.Time
}

// put takes a report in place of the node's last.
func (e *ejections) put(now time.Time, node, service string, r *sidecarv1.StateReport) error {
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
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(node)
	if len(list) == 0 {
		return nil
	}
	if len(e.byNode) >= maxReporters || e.all+len(list) > maxAllEjected {
		e.expire(now)
	}
	if len(e.byNode) >= maxReporters || e.all+len(list) > maxAllEjected {
		return fmt.Errorf("%d sidecars have reported %d ejected endpoints, that is the limit", len(e.byNode), e.all)
	}
	if e.byNode == nil {
		e.byNode = map[string]nodeReport{}
	}
	e.byNode[node] = nodeReport{list, now.Add(valid)}
	e.all += len(list)
	return nil
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

func (e *ejections) drop(node string) {
	e.all -= len(e.byNode[node].list)
	delete(e.byNode, node)
}

// expire forgets reports that are stale.
func (e *ejections) expire(now time.Time) {
	for node, r := range e.byNode {
		if now.After(r.until) {
			e.drop(node)
		}
	}
}

// Ejected lists the endpoints that sidecars leave out now, by sidecar, cluster and
// endpoint. What a sidecar has not repeated in time is not in it.
func (s *Service) Ejected() (list []Ejected) {
	e := &s.ejections
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expire(s.now())
	for _, r := range e.byNode {
		list = append(list, r.list...)
	}
	slices.SortFunc(list, func(a, b Ejected) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return list
}
