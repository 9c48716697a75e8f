// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"hash/maphash"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// wrapperURL is the type of resources that come wrapped in state-of-the-world
// responses (client feature xds.config.resource-in-sotw).
const wrapperURL = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// batch reads the resources of one response. Each stands for itself: a bad one
// is refused by name and the others are taken.
type batch struct {
	s  *Stream
	t  *typeState
	u  *Update
	at map[string]int // by name: index in u.Set, -1 for refused
	// twice are the names that came more than once.
	twice map[string]bool
	// hashes become the stream's byHash: only what came last is worth knowing.
	hashes map[uint64]string
}

func (b *batch) worldResource(i int, a *anypb.Any) {
	name := ""
	if a.GetTypeUrl() == wrapperURL {
		var w discoveryv3.Resource
		if err := proto.Unmarshal(a.GetValue(), &w); err != nil {
			b.unnamed(fmt.Sprintf("resources[%d]: %v", i, err))
			return
		}
		if w.GetResource() == nil {
			// A heartbeat: the resource is as it was.
			b.u.Kept[w.GetName()] = true
			return
		}
		name, a = w.GetName(), w.GetResource()
		if w.GetTtl() != nil {
			b.refuse(name, b.noTTL(name))
			return
		}
	}
	h := maphash.Bytes(b.s.seed, a.GetValue())
	if known, ok := b.t.byHash[h]; ok && a.GetTypeUrl() == decode.TypeOf(b.u.Kind).URL && b.s.known(b.u.Kind, known, a.GetValue()) {
		b.hashes[h] = known
		b.take(Item{Name: known, Version: b.u.Version, Bytes: a.GetValue()})
		return
	}
	r, err := b.s.cfg.Decode(b.u.Kind, name, a)
	if err != nil {
		if name == "" && b.s.cfg.Name != nil {
			name, _ = b.s.cfg.Name(b.u.Kind, a)
		}
		if name == "" {
			b.unnamed(fmt.Sprintf("resources[%d]: %v", i, err))
			return
		}
		b.refuse(name, err.Error())
		return
	}
	if !b.t.wildcard && !b.t.asks(r.Name) && !b.u.Full {
		return // not asked for: servers may send more than that
	}
	name = r.Name
	b.hashes[h] = name
	if b.s.known(b.u.Kind, name, a.GetValue()) { // as before, but not in the last response
		r = nil
	}
	b.take(Item{Name: name, Version: b.u.Version, Bytes: a.GetValue(), Resource: r})
}

func (b *batch) deltaResource(i int, res *discoveryv3.Resource) {
	name, a := res.GetName(), res.GetResource()
	switch {
	case a == nil: // a heartbeat
		return
	case name == "":
		b.unnamed(fmt.Sprintf("resources[%d]: decode %s: name: the resource has none", i, b.u.Kind))
		return
	case res.GetTtl() != nil:
		b.refuse(name, b.noTTL(name))
		return
	case !b.t.wildcard && !b.t.asks(name):
		return // it has been unsubscribed from meanwhile
	case b.s.known(b.u.Kind, name, a.GetValue()) && a.GetTypeUrl() == decode.TypeOf(b.u.Kind).URL:
		b.take(Item{Name: name, Version: res.GetVersion(), Bytes: a.GetValue()})
		return
	}
	r, err := b.s.cfg.Decode(b.u.Kind, name, a)
	if err != nil {
		b.refuse(name, err.Error())
		return
	}
	b.take(Item{Name: name, Version: res.GetVersion(), Bytes: a.GetValue(), Resource: r})
}

// noTTL refuses a time to live: a resource would silently outlive it. Servers
// send one only to clients that announce the feature.
func (b *batch) noTTL(name string) string {
	return fmt.Sprintf("decode %s %q: ttl: not supported by this version", b.u.Kind, name)
}

// take keeps a good resource, unless its name comes twice: then none of that
// name is taken.
func (b *batch) take(it Item) {
	if _, dup := b.at[it.Name]; dup {
		b.double(it.Name)
		return
	}
	b.at[it.Name] = len(b.u.Set)
	b.u.Set = append(b.u.Set, it)
}

func (b *batch) refuse(name, reason string) {
	if _, dup := b.at[name]; dup {
		b.double(name)
		return
	}
	b.at[name] = -1
	b.u.Kept[name] = true
	b.u.Rejected = append(b.u.Rejected, Rejection{Name: name, Reason: reason})
}

func (b *batch) double(name string) {
	if b.twice == nil {
		b.twice = map[string]bool{}
	}
	if b.twice[name] {
		return
	}
	b.twice[name] = true
	b.u.Kept[name] = true
	b.u.Rejected = append(b.u.Rejected, Rejection{Name: name, Reason: fmt.Sprintf("decode %s %q: is in the response twice", b.u.Kind, name)})
}

// unnamed refuses a resource whose name cannot be read: nothing may be deleted
// because of a response that has one, as it could be any.
func (b *batch) unnamed(reason string) {
	b.u.Full = false
	b.u.Rejected = append(b.u.Rejected, Rejection{Reason: reason})
}

// finish takes the doubles out.
func (b *batch) finish() {
	b.t.byHash = b.hashes
	if b.twice == nil {
		return
	}
	kept := b.u.Set[:0]
	for _, it := range b.u.Set {
		if !b.twice[it.Name] {
			kept = append(kept, it)
		}
	}
	b.u.Set = kept
}
