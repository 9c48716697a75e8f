// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// labelWatch tells of labels that no instance has. It waits a while before it does:
// instances come one after the other, and a version that is deployed anew is away for
// seconds. It belongs to the loop's goroutine.
type labelWatch struct {
	after time.Duration
	on    func(f mesh.LabelFault, cleared bool)
	due   *time.Timer // fires when the next one has lasted

	revision uint64 // of the model that was looked at
	faults   map[string]*labelFault
}

type labelFault struct {
	mesh.LabelFault
	since time.Time
	told  bool
}

func newLabelWatch(after time.Duration, on func(mesh.LabelFault, bool)) labelWatch {
	w := labelWatch{after: after, on: on, due: time.NewTimer(time.Hour), faults: map[string]*labelFault{}}
	w.due.Stop()
	return w
}

// update compares with a newer model what was said of the one before.
func (w *labelWatch) update(m *mesh.Model, now time.Time) {
	if m.Revision == w.revision {
		return
	}
	w.revision = m.Revision
	before := w.faults
	w.faults = map[string]*labelFault{}
	for _, f := range mesh.LabelFaults(m) {
		if len(m.Instances[f.Service]) == 0 {
			continue
		}
		key := f.Object.String() + "\x00" + f.Field
		x := &labelFault{LabelFault: f, since: now}
		if old := before[key]; old != nil {
			x.since, x.told = old.since, old.told
			delete(before, key)
		}
		w.faults[key] = x
	}
	for _, f := range sortedFaults(before) {
		if f.told && m.Object(f.Object) != nil {
			w.on(f.LabelFault, true)
		}
	}
	w.tell(now)
}

// tell tells of those that have lasted, and sets the timer for the others.
func (w *labelWatch) tell(now time.Time) {
	w.due.Stop()
	var next time.Time
	for _, f := range sortedFaults(w.faults) {
		switch end := f.since.Add(w.after); {
		case f.told:
		case !now.Before(end):
			f.told = true
			w.on(f.LabelFault, false)
		case next.IsZero() || end.Before(next):
			next = end
		}
	}
	if !next.IsZero() {
		w.due.Reset(next.Sub(now))
	}
}

func sortedFaults(faults map[string]*labelFault) []*labelFault {
	out := make([]*labelFault, 0, len(faults))
	for _, f := range faults {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *labelFault) int {
		return strings.Compare(a.Object.String()+"\x00"+a.Field, b.Object.String()+"\x00"+b.Field)
	})
	return out
}
