// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"maps"
	"slices"
	"time"
)

// keepSets is how long services stay divided by labels that no route names any more, as long
// as clusters that are gone linger (server.Config.RemovalGrace): clusters reach proxies
// before routes do, and a route that chooses by what its cluster no longer knows goes to any
// instance.
const keepSets = 2 * time.Second

// formerSets are sets of keys of labels that were named until lately, by service, and when
// that is over. The zero value has none. It belongs to the builder's goroutine.
type formerSets map[string]map[string]time.Time

// update notes what is named no more, and forgets what is again, or has been kept long enough.
func (f *formerSets) update(before, after map[string][]string, now time.Time) {
	if *f == nil {
		*f = formerSets{}
	}
	for service, sets := range before {
		for _, set := range sets {
			if (*f)[service] == nil {
				(*f)[service] = map[string]time.Time{}
			}
			(*f)[service][set] = now.Add(keepSets)
		}
	}
	for service, sets := range *f {
		maps.DeleteFunc(sets, func(set string, until time.Time) bool {
			return !now.Before(until) || slices.Contains(after[service], set)
		})
		if len(sets) == 0 {
			delete(*f, service)
		}
	}
}

// sets are those that are kept, by service, sorted.
func (f formerSets) sets() map[string][]string {
	out := make(map[string][]string, len(f))
	for service, sets := range f {
		out[service] = slices.Sorted(maps.Keys(sets))
	}
	return out
}

// end is when the first of them is over; zero: there is none.
func (f formerSets) end() (first time.Time) {
	for _, sets := range f {
		for _, t := range sets {
			if first.IsZero() || t.Before(first) {
				first = t
			}
		}
	}
	return first
}

// over reports whether one of them has been kept long enough.
func (f formerSets) over(now time.Time) bool {
	end := f.end()
	return !end.IsZero() && !now.Before(end)
}
