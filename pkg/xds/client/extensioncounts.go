// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"maps"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// ExtensionStatus is what has become of the configurations of a filter that come by
// ECDS, in Envoy's terms. It is counted by the filter's name, from when a listener first
// names it until none does.
type ExtensionStatus struct {
	Name    string
	Reloads uint64 // configurations that came, changed or were removed
	// Failures are those that were refused, waits for the first one that were given up, and
	// files that could not be read.
	Failures  uint64
	Conflicts uint64 // that were there and of no type that a filter of a listener takes
}

// extensionCounts are the counts by name.
type extensionCounts map[string]*ExtensionStatus

// keep begins the counts of names that are new and ends those of others.
func (x extensionCounts) keep(names map[string]bool) {
	for name := range names {
		if x[name] == nil {
			x[name] = &ExtensionStatus{Name: name}
		}
	}
	maps.DeleteFunc(x, func(name string, _ *ExtensionStatus) bool { return !names[name] })
}

// update counts what an update changed in the store, where it was before.
func (x extensionCounts) update(u *Update, before, after map[string]*entry) {
	for name, n := range x {
		if was, is := before[name], after[name]; (was == nil) != (is == nil) || was != nil && was.res != is.res {
			n.Reloads++
		}
	}
	for _, r := range u.Rejected {
		if r.Name == "" { // it may have been any
			for _, n := range x {
				n.Failures++
			}
		} else if n := x[r.Name]; n != nil {
			n.Failures++
		}
	}
}

// timedOut counts that a listener no longer waits for what n names.
func (x extensionCounts) timedOut(n need) {
	if n.kind == decode.Extension && x[n.name] != nil {
		x[n.name].Failures++
	}
}

// unread counts that a file could not be read. As in Envoy, a server that is lost does not
// count.
func (x extensionCounts) unread(s *source) {
	if s.src.Kind != decode.SourcePath {
		return
	}
	for name, n := range x {
		if s.stream.types[decode.Extension].asks(name) {
			n.Failures++
		}
	}
}

func (x extensionCounts) conflict(name string) {
	if n := x[name]; n != nil {
		n.Conflicts++
	}
}

// list is in the order of names.
func (x extensionCounts) list() []ExtensionStatus {
	var out []ExtensionStatus
	for _, n := range x {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b ExtensionStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
