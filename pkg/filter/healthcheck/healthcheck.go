// SPDX-License-Identifier: Apache-2.0

// Package healthcheck is the HTTP filter that answers health checks of this proxy, or
// lets them through to the upstream and keeps its answer for a while (Envoy's
// envoy.filters.http.health_check). While the admin port has said /healthcheck/fail,
// every health check gets 503, and every other response says that health checks fail.
//
// What is kept of the upstream's answer belongs to the configuration, for all workers;
// all else is of one worker. The checks that this proxy makes are in pkg/health.
package healthcheck

import (
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// TypeURL is the type of the filter's configuration.
const TypeURL = "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck"

// Spec describes the filter.
func Spec() filter.Spec {
	return filter.Spec{
		Name:    "envoy.filters.http.health_check",
		TypeURL: TypeURL,
		Build:   func(res any) any { return &settings{HealthFilter: res.(*resource.HealthFilter)} },
		New: func(config any, w filter.Worker) filter.Filter {
			return &checkFilter{w: w, settings: config.(*settings)}
		},
	}
}

// settings are a configuration with the answer that is kept.
type settings struct {
	*resource.HealthFilter
	answer atomic.Uint32 // status<<1, and 1 where the upstream is degraded; 0: none yet
	until  atomic.Int64  // of the loops' clock, which all workers share
}

// The headers that health checks and their answers have.
const (
	failHeader     = "x-envoy-immediate-health-check-fail"
	degradedHeader = "x-envoy-degraded"
	clusterHeader  = "x-envoy-upstream-healthchecked-cluster"
)

// Details of answers, as Envoy's.
const (
	detailsOK        = "health_check_ok"
	detailsFailed    = "health_check_failed"
	detailsCached    = "health_check_cached"
	detailsNoCluster = "health_check_failed_no_cluster_found"
	detailsEmpty     = "health_check_failed_cluster_empty"
	detailsUnhealthy = "health_check_failed_cluster_unhealthy"
)

// What is known of an exchange that is a health check; in its slot.
type state uint8

const (
	asked    state = iota + 1 // of the upstream
	answered                  // here
	degraded                  // here, by what is kept of a degraded upstream
)

// checkFilter serves the exchanges of one chain on one worker.
type checkFilter struct {
	w        filter.Worker
	settings *settings
	scratch  []byte
}

func (f *checkFilter) matches(x *filter.Exchange) bool {
	for i := range f.settings.Headers {
		m := &f.settings.Headers[i]
		v, found := filter.RequestValue(&x.Request, m.Name, &f.scratch)
		if !filter.MatchHeader(m, v, found) {
			return false
		}
	}
	return true
}

// OnRequest answers health checks.
func (f *checkFilter) OnRequest(x *filter.Exchange) filter.Verdict {
	if !f.matches(x) {
		return filter.Next
	}
	x.Record.HealthCheck = true
	s := f.settings
	kept := s.CacheTime > 0 && x.Now < s.until.Load()
	switch {
	case f.w.Failing():
		return f.answer(x, 503, detailsFailed, answered)
	case s.PassThrough && !kept:
		x.Slots[f.w.Slot] = asked
		return filter.Next
	case s.PassThrough:
		a := s.answer.Load()
		how := answered
		if a&1 != 0 {
			how = degraded
		}
		return f.answer(x, int(a>>1), detailsCached, how)
	}
	for i := range s.MinHealthy {
		if details := f.lacks(&s.MinHealthy[i]); details != "" {
			return f.answer(x, 503, details, answered)
		}
	}
	return f.answer(x, 200, detailsOK, answered)
}

// lacks says in what way a cluster has too few endpoints; "" where it has enough.
func (f *checkFilter) lacks(m *resource.MinHealthy) string {
	total, usable, ok := f.w.Members(m.Cluster)
	switch {
	case !ok:
		return detailsNoCluster
	case total == 0 && m.Percent > 0:
		return detailsEmpty
	case 100*uint64(usable) < uint64(total)*uint64(m.Percent):
		return detailsUnhealthy
	}
	return ""
}

func (f *checkFilter) answer(x *filter.Exchange, status int, details string, s state) filter.Verdict {
	x.Slots[f.w.Slot] = s
	x.Local = filter.LocalReply{Status: status, Details: details}
	if status < 200 || status > 299 {
		x.Local.Flags = record.LH
	}
	return filter.Reply
}

// OnResponse keeps the upstream's answer, and tells callers that health checks fail.
func (f *checkFilter) OnResponse(x *filter.Exchange) filter.Verdict {
	f.mark(x)
	return filter.Next
}

// OnReply marks the answer that the filter gives itself.
func (f *checkFilter) OnReply(x *filter.Exchange) { f.mark(x) }

func (f *checkFilter) mark(x *filter.Exchange) {
	s, _ := x.Slots[f.w.Slot].(state)
	h := &x.Response.Header
	switch {
	case s == 0 && f.w.Failing():
		h.Set(failHeader, []byte("true"))
	case s == 0:
	default:
		if s == asked && f.settings.CacheTime > 0 {
			a := uint32(x.Response.Status) << 1
			if h.Index(degradedHeader, 0) >= 0 {
				a |= 1
			}
			f.settings.answer.Store(a) // before it is to be used
			f.settings.until.Store(x.Now + int64(f.settings.CacheTime))
		}
		if s == degraded {
			h.Set(degradedHeader, nil)
		}
		h.Set(clusterHeader, []byte(f.w.Service))
	}
}

var (
	_ filter.ResponseFilter = (*checkFilter)(nil)
	_ filter.ReplyFilter    = (*checkFilter)(nil)
)
