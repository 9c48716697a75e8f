// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// compileTap makes what looks on at a TCP proxy's connections, for each worker.
func (p *Proxy) compileTap(f *resource.ConnectionFilter) ([]filter.ConnectionFilter, error) {
	if f == nil {
		return nil, nil
	}
	spec := p.options.Filters.Lookup(f.TypeURL)
	if spec == nil || spec.Connection == nil {
		return nil, fmt.Errorf("tap: no filter of type %s looks on at connections", f.TypeURL)
	}
	var taps []filter.ConnectionFilter
	for w := range p.workers {
		taps = append(taps, spec.Connection.New(f.Config, filter.Worker{Index: w, Loop: p.workers[w].loop}))
	}
	return taps, nil
}

// observe asks whether anybody follows the connection. Those that nobody does are as if
// there were no tap, and so is each direction of which enough was seen.
func (t *tunnel) observe() {
	if t.proxy.taps == nil {
		return
	}
	t.observer = t.proxy.taps[t.w.index].OnConnection(&t.rec, t.started, t.w.random.Uint64())
	t.down.seen, t.up.seen = t.observer != nil, t.observer != nil
}

// observed tells who followed the connection of its end.
func (t *tunnel) observed() {
	if o := t.observer; o != nil {
		t.observer, t.down.seen, t.up.seen = nil, false, false
		o.OnDone(t.w.loop.Now())
	}
}
