// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// source is a transport of resources with its stream: the aggregated one, or
// one of a single type.
type source struct {
	key    string
	src    decode.Source
	kind   decode.Kind // where single
	single bool
	stream *Stream
	out    outbox
	cancel context.CancelFunc

	// State for Status, of the goroutine of Run.
	connected bool
	since     time.Time
	lastError string
	failures  int
	bytes     int
	oversized uint64
	asked     [decode.KindCount]time.Time // since when a kind has been subscribed to
	kinds     [decode.KindCount]kindState
}

// kindState counts what came of a kind.
type kindState struct {
	accepted, rejected uint64
	updated            time.Time
	nack               string
	nackAt             time.Time
}

// label names a source in logs and in Status.
func (s *source) label() string {
	what := "ads"
	if s.single {
		what = decode.TypeOf(s.kind).Short
	}
	switch {
	case s.src.Kind == decode.SourcePath:
		return what + " file " + s.src.Path
	case s.src.Service.Target != "":
		return what + " " + s.src.Service.Target
	}
	return what + " " + s.src.Service.Cluster
}

// interest is what is wanted of one source and kind.
type interest struct {
	wildcard bool
	names    map[string]bool
}

// interests is what is wanted in all, by source.
type interests struct {
	by    map[string]*[decode.KindCount]interest
	where map[string]decode.Source
}

func (w *interests) add(key string, src decode.Source, kind decode.Kind, name string) {
	t := w.by[key]
	if t == nil {
		t = &[decode.KindCount]interest{}
		w.by[key] = t
		w.where[key] = src
	}
	in := &t[kind]
	if name == "" {
		in.wildcard = true
		return
	}
	if in.names == nil {
		in.names = map[string]bool{}
	}
	in.names[name] = true
}

// locate finds the source and its key for a reference: ADS and "self" are
// replaced by what they mean.
func (c *Client) locate(ref *decode.Ref, from *entry) (string, decode.Source, bool) {
	src := ref.Source
	if src.Kind == decode.NoSource && ref.Kind == decode.Route {
		src = c.scoped
	}
	if src.Kind == decode.SourceSelf && from != nil && from.source != nil {
		limit := src.InitialFetchTimeout
		src = from.source.src
		src.InitialFetchTimeout = limit
		if !from.source.single {
			return from.source.key, src, true
		}
		return fmt.Sprintf("%d|%s", ref.Kind, src.Key()), src, true
	}
	switch src.Kind {
	case decode.SourceADS:
		if c.cfg.Bootstrap.ADS == nil {
			return "", src, false
		}
		ads := *c.cfg.Bootstrap.ADS
		ads.InitialFetchTimeout = src.InitialFetchTimeout
		return "ads", ads, true
	case decode.NoSource, decode.SourceSelf:
		return "", src, false
	}
	return fmt.Sprintf("%d|%s", ref.Kind, src.Key()), src, true
}

// wanted computes the subscriptions that the resources held and in use need.
func (c *Client) wanted() *interests {
	w := &interests{by: map[string]*[decode.KindCount]interest{}, where: map[string]decode.Source{}}
	add := func(ref *decode.Ref, from *entry) {
		if key, src, ok := c.locate(ref, from); ok {
			w.add(key, src, ref.Kind, ref.Name)
		}
	}
	for _, ref := range c.first() {
		add(&ref, nil)
	}
	// Listeners come first: they say where the routes of scopes are.
	for _, kind := range []decode.Kind{decode.Listener, decode.Cluster, decode.ScopedRoute, decode.Route} {
		for _, set := range []map[string]*entry{c.store.latest[kind], c.asm.active[kind]} {
			for _, e := range set {
				for i := range e.res.Refs {
					ref := &e.res.Refs[i]
					switch {
					case ref.Kind == decode.Cluster:
					case ref.Kind == decode.Route && ref.Name == "":
						if ref.Source.Kind == decode.SourceSelf && e.source != nil {
							c.scoped = e.source.src
						} else if ref.Source.Kind != decode.NoSource {
							c.scoped = ref.Source
						}
					default:
						add(ref, e)
					}
				}
			}
		}
	}
	return w
}

// subscribe brings sources and subscriptions in line with what is wanted.
func (c *Client) subscribe(ctx context.Context) {
	if !c.rewant {
		return
	}
	c.rewant, c.store.rewire = false, false
	w := c.wanted()
	for key, kinds := range w.by {
		s := c.sources[key]
		if s == nil {
			s = c.startSource(ctx, key, w.where[key], kinds)
			if s == nil {
				continue
			}
		}
		for k := range kinds {
			s.want(decode.Kind(k), &kinds[k])
		}
	}
	for key, s := range c.sources {
		if w.by[key] != nil {
			continue
		}
		// Nothing is wanted of it any more.
		s.cancel()
		delete(c.sources, key)
	}
	c.collect(w)
	c.lookUp()
}

// want passes a changed subscription to the stream.
func (s *source) want(kind decode.Kind, in *interest) {
	names := make([]string, 0, len(in.names))
	for n := range in.names {
		names = append(names, n)
	}
	sort.Strings(names)
	if in.wildcard {
		names = nil
	}
	if (in.wildcard || len(names) > 0) && s.asked[kind].IsZero() {
		s.asked[kind] = time.Now()
	}
	out := s.stream.Step(Subscribe{Kind: kind, Wildcard: in.wildcard, Names: names})
	s.out.post(out.Requests)
}

// collect drops resources that nobody wants any more.
func (c *Client) collect(w *interests) {
	for _, kind := range []decode.Kind{decode.Endpoints, decode.Route, decode.ScopedRoute, decode.VirtualHost, decode.Runtime, decode.Secret, decode.Extension} {
		wild := false
		names := map[string]bool{}
		for _, kinds := range w.by {
			wild = wild || kinds[kind].wildcard
			for n := range kinds[kind].names {
				names[n] = true
			}
		}
		if kind == decode.Extension {
			c.asm.extensions.keep(names)
		}
		if wild {
			continue
		}
		for name, e := range c.store.latest[kind] {
			if !names[name] && !e.static && !(e.stale && c.fromCache()) {
				c.store.drop(kind, name)
			}
		}
	}
}

// first lists what the bootstrap asks for.
func (c *Client) first() []decode.Ref {
	var out []decode.Ref
	b := c.cfg.Bootstrap
	if b.CDS != nil {
		out = append(out, decode.Ref{Kind: decode.Cluster, Source: *b.CDS})
	}
	if b.LDS != nil {
		out = append(out, decode.Ref{Kind: decode.Listener, Source: *b.LDS})
	}
	for i := range b.Runtime {
		if b.Runtime[i].RTDS != "" {
			out = append(out, decode.Ref{Kind: decode.Runtime, Name: b.Runtime[i].RTDS, Source: b.Runtime[i].Source})
		}
	}
	return out
}

// answered reports whether the source of a reference has answered for its kind.
func (c *Client) answered(ref *decode.Ref, from *entry) bool {
	if ref.Kind == decode.Runtime {
		return c.store.latest[decode.Runtime][ref.Name] != nil
	}
	key, _, ok := c.locate(ref, from)
	if !ok {
		return true
	}
	s := c.sources[key]
	return s != nil && s.stream.Answered(ref.Kind)
}

// limit is the initial fetch timeout of a reference.
func (c *Client) limit(ref *decode.Ref, from *entry) time.Duration {
	_, src, _ := c.locate(ref, from)
	return src.InitialFetchTimeout
}

// addresses are the endpoints of a static cluster; those of DNS clusters are names,
// which who dials looks up.
func (c *Client) addresses(cluster string) []resource.Address {
	var out []resource.Address
	for _, r := range c.cfg.Bootstrap.Clusters {
		cl := r.Value.(*resource.Cluster)
		if cl.Name != cluster || cl.Configured() == nil {
			continue
		}
		for _, l := range cl.Configured().Localities {
			for i := range l.Endpoints {
				out = append(out, l.Endpoints[i].Address)
			}
		}
	}
	return out
}
