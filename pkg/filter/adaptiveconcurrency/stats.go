// SPDX-License-Identifier: Apache-2.0

package adaptiveconcurrency

import (
	"slices"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// shared is the configuration of one filter with the controller that its workers
// share, which the first request makes: there is a clock then.
type shared struct {
	config Config
	made   atomic.Pointer[Controller]
}

func (s *shared) controller(blocked *atomic.Uint64, now int64, seed uint64) *Controller {
	if s.made.Load() == nil {
		s.made.CompareAndSwap(nil, NewController(s.config, blocked, now, seed))
	}
	return s.made.Load()
}

func (s *shared) state() State {
	if k := s.made.Load(); k != nil {
		return k.State()
	}
	return State{Limit: uint64(s.config.MinConcurrency)}
}

// store are the filters that are shown: of each stat prefix the one that was
// configured last. The list is replaced where filters are made, off the loops.
type store struct{ list atomic.Pointer[[]shown] }

type shown struct {
	prefix  string
	filter  *shared
	blocked *atomic.Uint64 // of all that had the prefix
}

// show makes the filter the one of its prefix, and returns where refusals are counted.
func (s *store) show(prefix string, f *shared) *atomic.Uint64 {
	for {
		old := s.list.Load()
		var list []shown
		if old != nil {
			list = slices.Clone(*old)
		}
		i := slices.IndexFunc(list, func(e shown) bool { return e.prefix == prefix })
		if i < 0 {
			i = len(list)
			list = append(list, shown{prefix: prefix, blocked: new(atomic.Uint64)})
		}
		list[i].filter = f
		if s.list.CompareAndSwap(old, &list) {
			return list[i].blocked
		}
	}
}

// counts implements filter.Spec.Counts: controllers belong to no worker, the first
// one shows them.
func (s *store) counts(worker int, dst []filter.Count) []filter.Count {
	list := s.list.Load()
	if worker != 0 || list == nil {
		return dst
	}
	for i := range *list {
		e := &(*list)[i]
		st := e.filter.state()
		measuring := uint64(0)
		if st.Measuring {
			measuring = 1
		}
		for _, c := range [...]struct {
			name, help string
			value      uint64
			gauge      bool
		}{
			{"rq_blocked", "Requests refused as too many were under way.", e.blocked.Load(), false},
			{"concurrency_limit", "Requests that may be under way.", st.Limit, true},
			{"gradient", "Factor of the last change of the limit, in thousandths.", st.Gradient, true},
			{"burst_queue_size", "Room for bursts in the limit.", st.Burst, true},
			{"min_rtt_msecs", "Least round-trip time as measured last, in milliseconds.", uint64(st.MinRTT.Milliseconds()), true},
			{"sample_rtt_msecs", "Round-trip time of the last window, in milliseconds.", uint64(st.SampleRTT.Milliseconds()), true},
			{"min_rtt_calculation_active", "1 while the least round-trip time is measured.", measuring, true},
		} {
			dst = append(dst, filter.Count{
				Scope: "http." + e.prefix + ".adaptive_concurrency.gradient_controller", Family: "http.adaptive_concurrency.gradient_controller",
				Tags: []filter.Tag{{Name: "envoy_http_conn_manager_prefix", Value: e.prefix}},
				Name: c.name, Help: c.help, Value: c.value, Gauge: c.gauge,
			})
		}
	}
	return dst
}

// StateForTest reads the controller of a configuration that Spec().Parse has made.
func StateForTest(config any) State { return config.(*shared).state() }
