// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

// Inherit takes what a process before this one has counted, by name: counters that this
// process has, too, go on from there. The values replace those that were inherited
// before. The map is the server's from then on. Any goroutine may call it.
func (s *Server) Inherit(counters map[string]uint64) { s.inherited.Store(&counters) }

// Counters are all counters but those that are zero, as /stats shows them, by name: for
// a successor to inherit.
func (s *Server) Counters(ctx context.Context) (map[string]uint64, error) {
	list, err := s.samples(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	list = metrics.Sort(s.sinceReset(list))
	for i := range list {
		if list[i].Kind == metrics.KindCounter && list[i].Value > 0 {
			out[list[i].FullName()] = list[i].Value
		}
	}
	return out, nil
}

// withInherited adds what was inherited to counters of the same name.
func (s *Server) withInherited(list []metrics.Sample) []metrics.Sample {
	in := s.inherited.Load()
	if in == nil || len(*in) == 0 {
		return list
	}
	list = metrics.Sort(list) // adds up what has one name
	for i := range list {
		if list[i].Kind == metrics.KindCounter {
			list[i].Value += (*in)[list[i].FullName()]
		}
	}
	return list
}
