// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// transport is what connections to some of a cluster's endpoints are made with.
type transport struct {
	match   map[string]string     // of the endpoints' metadata; empty: all that come so far
	res     *resource.UpstreamTLS // nil: plaintext. Equal settings keep the pointer over updates
	context *mtls.ClientContext   // nil while it cannot be made: nothing is dialled
	used    material
}

// plainTransport is that of clusters which are not secured.
var plainTransport transport

// securedCluster reports whether connections to the cluster depend on anything.
func securedCluster(c *resource.Cluster) bool { return c.TLS != nil || len(c.SocketMatches) > 0 }

// transports are a cluster's in the order in which endpoints choose; the last is for
// all. Empty: plaintext.
func (c *cluster) transports() []*transport {
	if list := c.tls.Load(); list != nil {
		return *list
	}
	return nil
}

// accepts reports whether the transport is for an endpoint.
func (t *transport) accepts(about map[string]string) bool {
	for k, v := range t.match {
		if got, ok := about[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// secureCluster brings the transports of a cluster up to date with its configuration,
// secrets and files. A context that cannot be made leaves the one before in service.
func (p *Proxy) secureCluster(c *cluster, res *resource.Cluster) error {
	if !securedCluster(res) {
		c.tls.Store(nil)
		delete(p.restless, c.name)
		return nil
	}
	before := c.transports()
	var list []*transport
	var failed error
	changed := len(before) != len(res.SocketMatches)+1
	add := func(match map[string]string, r *resource.UpstreamTLS) {
		i := len(list)
		var prev *transport
		if i < len(before) {
			prev = before[i]
		}
		next := p.secureTransport(prev, match, c.known(r))
		changed = changed || next != prev
		list = append(list, next)
		if next.used.err != nil && failed == nil {
			failed = fmt.Errorf("cluster %q: %s: %w", c.name, placeOf(i, res), next.used.err)
		}
	}
	for i := range res.SocketMatches {
		add(res.SocketMatches[i].Match, res.SocketMatches[i].TLS)
	}
	add(nil, res.TLS)
	if changed {
		c.tls.Store(&list)
	}
	if slices.ContainsFunc(list, func(t *transport) bool { return t.res != nil && !t.used.idle() }) {
		p.restless[c.name] = struct{}{}
	} else {
		delete(p.restless, c.name)
	}
	return failed
}

// maxSettings bounds cluster.settings.
const maxSettings = 8

// known is r, or what says the same and was used lately: connections that were made with
// it are no longer outdated when a change is taken back.
func (c *cluster) known(r *resource.UpstreamTLS) *resource.UpstreamTLS {
	if r == nil {
		return nil
	}
	for i, s := range c.settings {
		if sameSettings(s, r) {
			c.settings = append(slices.Delete(c.settings, i, i+1), s) // the latest use is last
			return s
		}
	}
	if len(c.settings) == maxSettings {
		c.settings = slices.Delete(c.settings, 0, 1)
	}
	c.settings = append(c.settings, r)
	return r
}

func placeOf(i int, res *resource.Cluster) string {
	if i < len(res.SocketMatches) {
		return fmt.Sprintf("transport_socket_matches[%d]", i)
	}
	return "transport_socket"
}

// secureTransport makes the transport that follows prev, which may be nil and is kept
// where nothing has changed.
func (p *Proxy) secureTransport(prev *transport, match map[string]string, r *resource.UpstreamTLS) *transport {
	t := &transport{match: match, res: r}
	if prev != nil && sameSettings(prev.res, r) {
		t.res = prev.res
	} else {
		prev = nil
	}
	if r == nil {
		if prev != nil && reflect.DeepEqual(prev.match, match) {
			return prev
		}
		return t
	}
	t.used = newMaterial(p.snapshot.Secrets, &r.CommonTLS, nil, "")
	if prev != nil && prev.used.same(&t.used) {
		if reflect.DeepEqual(prev.match, match) {
			return prev
		}
		t.used.err, t.context = prev.used.err, prev.context
		return t
	}
	t.context, t.used.err = mtls.NewClientContext(t.res, p.tlsOptions())
	if t.used.err != nil && prev != nil {
		t.context = prev.context // the last good one of the same settings
	}
	return t
}

// sameSettings reports whether two say the same. Updates of a cluster decode its TLS
// anew, which must not end connections and sessions.
func sameSettings(a, b *resource.UpstreamTLS) bool {
	return a == b || a != nil && b != nil && reflect.DeepEqual(a, b)
}

// transport is what connections to an endpoint are made with: asked for each
// connection, never for a request.
func (on *clusterOn) transport(h *lb.Host) *transport { return on.c.transportOf(h, nil) }

// transportOf chooses by the host's metadata, or by what is given in its place.
func (c *cluster) transportOf(h *lb.Host, about map[string]string) *transport {
	list := c.transports()
	if len(list) == 0 {
		return &plainTransport
	}
	if about == nil {
		about = h.Metadata()[resource.MatchNamespace]
	}
	for _, t := range list[:len(list)-1] {
		if t.accepts(about) {
			return t
		}
	}
	return list[len(list)-1]
}

// dial connects to an endpoint, over TLS where the cluster says so. protocol is
// offered by ALPN where the cluster names none; empty offers nothing.
func (on *clusterOn) dial(host *lb.Host, protocol string, h secureHandler) (*reactor.Conn, error) {
	to := reactor.Addr{AddrPort: host.Dial(), Unix: host.Path()}
	t := on.transport(host)
	if !on.c.used.Load() {
		on.c.used.Store(true)
	}
	switch {
	case t.res == nil && (t != &plainTransport || !securedCluster(on.spec.res)):
		return on.w.loop.Dial(to, on.spec.dialOptions(), h)
	case t.context == nil:
		return nil, mtls.Failure{Reason: mtls.NoContext}
	}
	return on.w.gate.Dial(to, on.spec.dialOptions(), t.context, mtls.Hello{Name: host.Hostname(), Protocol: protocol}, on.spec.res.ConnectTimeout, h)
}

// refused is the failure of attempts on a connection that the endpoint has ended
// because it does not accept our certificate; nil for any other end. To the client it
// looked secured already, but nothing that it sent was processed.
func (p *hostPool) refused(c *reactor.Conn, err error) *failure {
	if err == nil || c.ReadBytes() > 0 {
		return nil
	}
	f, ok := mtls.Refused(err)
	if !ok {
		return nil
	}
	p.on.stats.cxConnectFail++
	p.host.Stats.CxConnectFail.Add(1)
	return tlsFailure(f)
}

// secureHandler is a handler of dialled connections, plain or secured.
type secureHandler interface {
	reactor.Handler
	mtls.Owner
}

// OnSecure implements mtls.Owner.
func (u *upstreamConn) OnSecure(*reactor.Conn, *mtls.Session) reactor.Handler { return u }

// OnInsecure implements mtls.Owner: the connection never opened.
func (u *upstreamConn) OnInsecure(c *reactor.Conn, f mtls.Failure) { u.OnClose(c, connectError(f)) }

// OnSecure implements mtls.Owner.
func (u *http2Up) OnSecure(*reactor.Conn, *mtls.Session) reactor.Handler { return u }

// OnInsecure implements mtls.Owner: the connection never opened.
func (u *http2Up) OnInsecure(c *reactor.Conn, f mtls.Failure) { u.OnClose(c, connectError(f)) }

// OnSecure implements mtls.Owner.
func (s *tunnelSide) OnSecure(*reactor.Conn, *mtls.Session) reactor.Handler { return s }

// OnInsecure implements mtls.Owner.
func (s *tunnelSide) OnInsecure(c *reactor.Conn, f mtls.Failure) { s.OnClose(c, connectError(f)) }
