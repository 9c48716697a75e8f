// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// processors is every step of a build, in the order in which a request meets
// what they make. They do not depend on one another.
var processors = []processor{
	{"listeners", server.TypeListener, needsServices | needsObjects | needsTime, listeners},
	{"gRPC listeners", server.TypeListener, needsServices | needsObjects | needsInstances, apiListeners},
	{"routes", server.TypeRoute, needsServices | needsObjects, routes},
	{"clusters", server.TypeCluster, needsServices | needsObjects | needsTime, clusters},
	{"secure clusters", server.TypeCluster, needsServices | needsObjects | needsInstances | needsTime, secureClusters},
	{"endpoints", server.TypeEndpoint, needsServices | needsObjects | needsInstances | needsTime, endpoints},
	{"secrets", server.TypeSecret, needsObjects | needsKeys, secrets},
}

// needs says which parts of the model a processor looks at.
type needs uint8

const (
	needsServices  needs = 1 << iota
	needsObjects         // user objects, and which services they name
	needsInstances       // registered and static
	needsTime            // things that end
	needsKeys            // of sessions
)

// processor makes the recipes of one type.
type processor struct {
	name    string
	typeURL string
	needs   needs
	recipes func(in input) []recipe
}

// input is what a build looks at; nothing else.
type input struct {
	index *encode.Index
	group Group
	now   time.Time
	// trustDomain is that of the mesh's identities; empty: there are none.
	trustDomain string
	// sessionKeys are one or two keys; empty: there are none. Never shown.
	sessionKeys string
}

// recipe is one resource: it is what made it last time as long as its inputs
// are the same values.
type recipe struct {
	name   string
	inputs []any
	make   func() (proto.Message, []encode.Problem, error)
}

// Resources is what a group has: messages by type URL and name.
type Resources map[string]map[string]proto.Message

// Build makes everything that a group has, from nothing. It is pure: equal
// arguments give equal resources. Problems are what was left out.
func Build(m *mesh.Model, g Group, now time.Time, trustDomain string) (Resources, []BuildProblem) {
	out := Resources{}
	var problems []BuildProblem
	in := input{index: encode.NewIndex(m), group: g, now: now, trustDomain: trustDomain}
	for _, p := range processors {
		for _, r := range p.recipes(in) {
			msg, skipped, err := r.make()
			problems = append(problems, problemsOf(g, p, r, skipped, err)...)
			if err != nil {
				continue
			}
			if out[p.typeURL] == nil {
				out[p.typeURL] = map[string]proto.Message{}
			}
			out[p.typeURL][r.name] = msg
		}
	}
	return out, problems
}

// BuildProblem is a resource that could not be made, or an object that was
// left out of one. What was published before stays.
type BuildProblem struct {
	Group    string    `json:"group"`
	Type     string    `json:"type"`
	Resource string    `json:"resource"`
	Object   string    `json:"object,omitempty"` // Kind/name at fault
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since,omitzero"`
}

func (p BuildProblem) Error() string {
	if p.Object != "" {
		return p.Object + ": " + p.Reason
	}
	return fmt.Sprintf("group %s: %s", p.Group, p.Reason)
}

func problemsOf(g Group, p processor, r recipe, skipped []encode.Problem, err error) []BuildProblem {
	var out []BuildProblem
	for _, s := range skipped {
		out = append(out, BuildProblem{Group: g.String(), Type: p.typeURL, Resource: r.name, Object: s.Object.String(), Reason: s.Reason})
	}
	if err != nil {
		out = append(out, BuildProblem{Group: g.String(), Type: p.typeURL, Resource: r.name, Reason: err.Error()})
	}
	return out
}

// builder remembers what it made. It belongs to one goroutine.
type builder struct {
	newResource func(name string, m proto.Message) (*server.Resource, error)
	trustDomain string
	sessionKeys string // as input has them
	index       *encode.Index
	former      formerSets
	groups      map[Group]*built
}

// built is one group's resources as they were made last.
type built struct {
	parts map[string]parts            // by processor: what it saw
	made  map[string]map[string]*made // by processor and name
}

// made is one resource with what went into it.
type made struct {
	inputs   []any
	resource *server.Resource // nil if it could never be made
	problems []BuildProblem
}

// parts are the maps of a model that a build saw. Models share the maps that
// did not change, so that comparing them is comparing pointers; they are held
// on to, so that no other map can come to the same address.
type parts struct {
	services  map[string]*mesh.Service
	instances map[string][]*mesh.Instance
	objects   map[string]map[string]mesh.Object
	taps      int64 // when the set of taps last changed by itself
	keys      string
}

func newBuilder(newResource func(string, proto.Message) (*server.Resource, error), trustDomain string) *builder {
	return &builder{newResource: newResource, trustDomain: trustDomain, groups: map[Group]*built{}}
}

// adopt makes m the model to build from.
func (b *builder) adopt(m *mesh.Model, now time.Time) {
	x := b.index
	if x != nil && same(x.Model.Services, m.Services) && same(x.Model.Objects, m.Objects) && !b.former.over(now) {
		b.index = x.With(m)
		return
	}
	b.index = encode.NewIndex(m)
	if x != nil {
		b.former.update(x.Sets(), b.index.Sets(), now)
		b.index.Keep(b.former.sets())
	}
}

// build makes what changed of a group, and answers the updates to publish.
func (b *builder) build(g Group, now time.Time, epoch int64) ([]server.Update, []BuildProblem) {
	state := b.groups[g]
	first := state == nil
	if first {
		state = &built{parts: map[string]parts{}, made: map[string]map[string]*made{}}
		b.groups[g] = state
	}
	m := b.index.Model
	seen := parts{m.Services, m.Instances, m.Objects, epoch, b.sessionKeys}
	in := input{b.index, g, now, b.trustDomain, b.sessionKeys}
	var updates []server.Update
	for _, p := range processors {
		before, again := state.parts[p.name]
		if again && before.cover(seen, p.needs) {
			continue
		}
		state.parts[p.name] = seen
		if state.made[p.name] == nil {
			state.made[p.name] = map[string]*made{}
		}
		u, changed := b.process(p, in, state.made[p.name])
		if changed || first {
			updates = append(updates, u)
		}
	}
	return updates, state.problems()
}

// cover says whether nothing that is needed has changed.
func (a parts) cover(b parts, n needs) bool {
	return (n&needsServices == 0 || same(a.services, b.services)) &&
		(n&needsInstances == 0 || same(a.instances, b.instances)) &&
		(n&needsObjects == 0 || same(a.objects, b.objects)) &&
		(n&needsTime == 0 || a.taps == b.taps) &&
		(n&needsKeys == 0 || a.keys == b.keys)
}

// process runs one processor over what it made before.
func (b *builder) process(p processor, in input, before map[string]*made) (u server.Update, changed bool) {
	u.Type = p.typeURL
	recipes := p.recipes(in)
	seen := make(map[string]struct{}, len(recipes))
	for _, r := range recipes {
		seen[r.name] = struct{}{}
		old := before[r.name]
		if old != nil && equalInputs(old.inputs, r.inputs) {
			continue
		}
		next := b.make(p, in.group, r, old)
		before[r.name] = next
		if next.resource != nil && (old == nil || old.resource == nil || old.resource.Version() != next.resource.Version()) {
			u.Changed = append(u.Changed, next.resource)
			changed = true
		}
	}
	for name, old := range before {
		if _, ok := seen[name]; !ok {
			delete(before, name)
			if old.resource != nil {
				u.Removed = append(u.Removed, name)
				changed = true
			}
		}
	}
	slices.Sort(u.Removed)
	return u, changed
}

// make makes one resource; where that fails, the old one stays.
func (b *builder) make(p processor, g Group, r recipe, old *made) *made {
	next := &made{inputs: r.inputs}
	msg, skipped, err := r.make()
	if err == nil {
		next.resource, err = b.newResource(r.name, msg)
	}
	if err != nil && old != nil {
		next.resource = old.resource
	}
	next.problems = problemsOf(g, p, r, skipped, err)
	return next
}

func (s *built) problems() []BuildProblem {
	var out []BuildProblem
	for _, p := range processors {
		for _, m := range s.made[p.name] {
			out = append(out, m.problems...)
		}
	}
	return out
}

// same says whether two maps are one map.
func same[K comparable, V any](a, b map[K]V) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// equalInputs compares what went into a resource: pointers to immutable
// objects, plain values, lists of instances.
func equalInputs(a, b []any) bool {
	return slices.EqualFunc(a, b, func(x, y any) bool {
		if list, ok := x.([]*mesh.Instance); ok {
			other, ok := y.([]*mesh.Instance)
			return ok && slices.Equal(list, other)
		}
		if text, ok := x.([]string); ok {
			other, ok := y.([]string)
			return ok && slices.Equal(text, other)
		}
		if v := reflect.ValueOf(x); v.Kind() == reflect.Map {
			w := reflect.ValueOf(y)
			return w.Kind() == reflect.Map && v.UnsafePointer() == w.UnsafePointer()
		}
		return x == y
	})
}
