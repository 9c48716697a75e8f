// SPDX-License-Identifier: Apache-2.0

// Package statefulsession is the HTTP filter that keeps the requests of a client at
// the endpoint that its first one came to (Envoy's
// envoy.filters.http.stateful_session). The endpoint's address is in a cookie or a
// header that the client gives back, in Envoy's own encoding, so that a fleet that
// mixes proxies keeps sessions. An address that is none of the cluster's leads
// nowhere: the request is balanced as others are, or fails where that is strict.
package statefulsession

import (
	"encoding/base64"
	"net/netip"
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// The types of the filter's configuration, and of that for a route.
const (
	TypeURL      = "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
	RouteTypeURL = "type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"
)

const filterName = "envoy.filters.http.stateful_session"

// Spec describes the filter.
func Spec() filter.Spec {
	ring := new(keyring)
	return filter.Spec{
		Name: filterName, TypeURL: TypeURL, Parse: parse, Secrets: ring.take,
		New: func(config any, w filter.Worker) filter.Filter {
			c, _ := config.(*Config)
			return &session{config: c, name: w.Name, slot: w.Slot, wall: w.Loop.Wall, ring: ring}
		},
	}
}

// RouteSpec describes its settings of routes.
func RouteSpec() filter.Spec {
	return filter.Spec{Name: filterName, TypeURL: RouteTypeURL, Parse: parseRoute, PerRoute: true, RouteOnly: true}
}

// session serves the exchanges of one chain on one worker. All is loop-owned.
type session struct {
	config  *Config // nil: routes have their own
	name    string  // in its chain, by which routes have settings
	slot    int
	wall    func() int64 // nanoseconds since 1970
	ring    *keyring
	scratch []byte
	encoded []byte
	sealed  []byte
}

// maxValue is the longest encoded address that is looked at.
const maxValue = 256

// OnRequest names the endpoint that the client's session is at.
func (f *session) OnRequest(x *filter.Exchange) filter.Verdict {
	c := f.setting(x)
	if c == nil || c.kind == stateless || !c.covers(x.Request.Path()) {
		return filter.Next
	}
	x.Slots[f.slot] = c
	var value []byte
	if c.kind == byCookie {
		value, _ = x.Request.Header.Cookie(c.name)
	} else {
		value = x.Request.Get(c.name)
	}
	a, ok := netip.AddrPort{}, false
	if c.outdated == nil {
		a, ok = f.decode(c, value)
	} else {
		var old bool
		if a, old, ok = f.open(c, value); old && ok {
			x.Slots[f.slot] = c.outdated
		}
	}
	if ok {
		// Envoy's sessions stay where a fallback of subsets has put them, and so do those that
		// Envoys may read.
		x.Override = filter.Override{Address: a, Strict: c.strict, NotFound: c.notFound, Returns: c.outdated != nil}
	}
	return filter.Next
}

// OnResponse tells the client where its session is, if it has not come from there.
func (f *session) OnResponse(x *filter.Exchange) filter.Verdict {
	c, again := f.settings(x)
	if c == nil || x.FellBack || !x.Record.HasUpstream || !x.Record.UpstreamAddr.IsValid() || !again && x.Record.UpstreamAddr == x.Override.Address {
		return filter.Next
	}
	var k keys // once: others may come at any time
	if c.outdated != nil {
		if k = f.keysOf(c); k == nil {
			return filter.Next // nothing is told in the clear while there are none
		}
	}
	if c.kind == byCookie {
		x.Response.AddKnown(codec.NameSetCookie, f.cookie(c, k, x.Record.UpstreamAddr))
		return filter.Next
	}
	if k != nil {
		f.encoded = f.appendSealed(f.encoded[:0], c, k, x.Record.UpstreamAddr, 0)
		x.Response.Set(c.name, f.encoded)
		return filter.Next
	}
	f.scratch = x.Record.UpstreamAddr.AppendTo(f.scratch[:0])
	f.encoded = base64.StdEncoding.AppendEncode(f.encoded[:0], f.scratch)
	x.Response.Set(c.name, f.encoded)
	return filter.Next
}

// setting is what is configured for the request: by its route, or for all.
func (f *session) setting(x *filter.Exchange) *Config {
	if r, ok := x.Setting(f.name).(*routeConfig); ok {
		return r.config
	}
	return f.config
}

// decode reads the address of a session; not ok where there is none, or one that has
// expired.
func (f *session) decode(c *Config, value []byte) (a netip.AddrPort, ok bool) {
	if len(value) == 0 || len(value) > maxValue {
		return a, false
	}
	raw, err := base64.StdEncoding.AppendDecode(f.scratch[:0], value)
	f.scratch = raw
	if err != nil {
		return a, false
	}
	if c.kind == byCookie {
		if text, expires, ok := readCookie(raw); ok {
			if expires != 0 && f.wall()/1e9 > expires {
				return a, false
			}
			raw = text
		} // else an address alone, as older Envoys write it
	}
	return lb.ParseAddress(raw)
}

// cookie makes the value of Set-Cookie, encrypted where there are keys; its memory is used
// again.
func (f *session) cookie(c *Config, k keys, a netip.AddrPort) []byte {
	var expires int64
	if c.ttl > 0 {
		expires = f.wall()/1e9 + c.ttl
	}
	b := append(append(f.encoded[:0], c.name...), `="`...)
	if k != nil {
		b = f.appendSealed(b, c, k, a, expires)
	} else {
		f.scratch = appendCookie(f.scratch[:0], a, expires)
		b = base64.StdEncoding.AppendEncode(b, f.scratch)
	}
	b = append(b, '"')
	if c.ttl > 0 {
		b = strconv.AppendInt(append(b, "; Max-Age="...), c.ttl, 10)
	}
	f.encoded = append(b, c.attributes...)
	return f.encoded
}
