// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// phases is the life of a request's head, top to bottom. A phase answers Next;
// or Wait, having seen to it that an event or a wake-up calls advance again; or
// Reply with x.Local set. A retry sets the phase back to admit. No phase can
// call advance: the compiler would refuse the cycle.
var phases = [...]func(*exchange) filter.Verdict{
	(*exchange).prepareRequest, // before matching: matchers see what is forwarded
	(*exchange).matchRoute,
	(*exchange).filterRequest, // after the route: filters have settings by route
	(*exchange).answerRoute,   // after the filters: they see what needs no upstream too
	(*exchange).editRequestHead,
	(*exchange).admit, // breaker and limits: the first of each attempt
	(*exchange).pickEndpoint,
	(*exchange).borrowStream,
	(*exchange).sendRequest,
	(*exchange).awaitResponse, // retries go back from here
	(*exchange).filterResponse,
	(*exchange).sendResponse,
}

const (
	admitPhase = 5
	awaitPhase = 9
)

// matchRoute finds the virtual host and the route. A reply of its own waits until
// the filters have seen the request.
func (x *exchange) matchRoute() filter.Verdict {
	if x.findRoute() == filter.Reply {
		x.routeReply, x.answered = x.Local, true
	} else {
		x.noteWanted()
	}
	return filter.Next
}

// answerRoute sends the reply of matchRoute: no route, a redirect, a direct
// response.
func (x *exchange) answerRoute() filter.Verdict {
	if !x.answered {
		return filter.Next
	}
	x.startTrace()
	x.Local = x.routeReply
	return filter.Reply
}

// findRoute matches the request, and answers what needs no upstream.
func (x *exchange) findRoute() filter.Verdict {
	t := x.routeTable()
	if t == nil {
		return x.reply(&failureNoRouteTable)
	}
	if !x.internal {
		for _, n := range t.res.InternalOnly {
			x.Request.Remove(n)
		}
	}
	authority := x.lowerAuthority()
	vh := t.host(authority)
	if vh == nil {
		return x.reply(&failureNoRoute)
	}
	if v := x.requireTLS(vh); v != filter.Next {
		return v
	}
	r := vh.match(x)
	if r == nil {
		return x.reply(&failureNoRoute)
	}
	x.route = r
	x.Route = r.res
	x.Record.Route, x.Record.VirtualHost, x.Record.Operation = r.res.Name, vh.res.Name, r.res.Decorator
	switch {
	case r.res.Direct != nil:
		x.Record.Details = "direct_response"
		return x.directResponse(r.res.Direct, "direct_response")
	case r.res.Redirect != nil:
		return x.redirect(r.res.Redirect)
	}
	return x.selectCluster()
}

// selectCluster resolves the route's action to a cluster.
func (x *exchange) selectCluster() filter.Verdict {
	a := x.route.action
	var c *cluster
	switch {
	case a.res.ClusterHeader != "":
		v, ok := requestValue(&x.Request, a.res.ClusterHeader, &x.w.joined)
		if ok {
			c = (*x.w.byName.Load())[string(v)]
		}
	case len(a.clusters) == 1:
		x.weighted = &a.clusters[0]
		c = x.weighted.cluster
	default:
		pick := uint32(x.Random % uint64(max(a.total, 1)))
		for i := range a.clusters {
			if pick < a.clusters[i].upTo {
				x.weighted = &a.clusters[i]
				break
			}
		}
		c = x.weighted.cluster
	}
	if c == nil && x.weighted != nil && x.weighted.res.Header != "" {
		if v, ok := requestValue(&x.Request, x.weighted.res.Header, &x.w.joined); ok {
			c = (*x.w.byName.Load())[string(v)]
		}
	}
	if c != nil {
		x.cluster = c
		x.on = x.w.clusterOn(c)
	}
	if x.on == nil {
		if c != nil {
			x.Record.Cluster = c.name
		}
		f := failureNoCluster
		if a.res.NotFound != 0 {
			f.Status = a.res.NotFound
		}
		return x.reply(&f)
	}
	x.Record.Cluster = c.name
	if x.weighted != nil {
		x.ClusterConfig = x.weighted.res.FilterConfig
	}
	x.chooseMember() // filters and offers of tunnels go by one of the members
	if v := x.offerTunnel(); v != filter.Next {
		return v
	}
	if name := x.invalidStrictHeader(); name != "" {
		return x.reply(&failureStrictHeader)
	}
	x.initRetry()
	return filter.Next
}

// criteria are the labels that the route asks of endpoints; nobody changes them.
func (x *exchange) criteria() *criteria {
	if x.fallen.from != nil {
		return &noCriteria // they are of the other cluster's endpoints
	}
	if x.weighted != nil {
		return &x.weighted.criteria
	}
	return &x.route.action.criteria
}

// filterRequest runs the request hooks of the filters, then hands them what came
// of the body with the head.
func (x *exchange) filterRequest() filter.Verdict {
	hooks := x.manager.filters[x.w.index]
	i := 0
	if x.wait.on {
		if v := x.goOnRequest(); v != filter.Next {
			return v
		}
		i = x.wait.hook + 1
	} else if x.shedFilters() {
		return x.refuseOverloaded()
	}
	for ; i < len(hooks); i++ {
		if v := hooks[i].request.OnRequest(&x.Exchange); v != filter.Next {
			if v == filter.Wait {
				x.armTimeouts()
			}
			return x.stop(v, i)
		}
	}
	x.filtered = true
	if len(x.body) > 0 || (x.requestDone && x.Request.BodyLength != codec.BodyNone) {
		return x.filterKept()
	}
	return filter.Next
}

// editRequestHead makes the head what the upstream is to see. It runs once: all
// attempts send the same.
func (x *exchange) editRequestHead() filter.Verdict {
	x.startTrace()
	x.setTimeoutHeaders()
	if x.weighted != nil {
		if e := &x.weighted.res.HeaderEdits; !e.Empty() {
			x.editRequest(e)
		}
	}
	for _, e := range x.route.edits {
		x.editRequest(e)
	}
	if v := x.rewritePath(); v != filter.Next {
		return v
	}
	x.rewriteHost()
	x.noteKey()
	x.computeHash()
	x.selectMirrors()
	x.armTimeouts()
	return filter.Next
}

// pickEndpoint chooses a host for the attempt.
func (x *exchange) pickEndpoint() filter.Verdict {
	a := x.main
	h, v := x.overriding()
	if v != filter.Next {
		return v
	}
	if h == nil {
		h = x.pickHost()
	}
	if h == nil {
		x.on.stats.noneHealthy++
		return x.attemptFailed(a, x.noHealthy())
	}
	a.host = h
	x.noteHost(h)
	return filter.Next
}

// borrowStream gets a connection: an idle one, or one that is being dialled.
func (x *exchange) borrowStream() filter.Verdict {
	a := x.main
	if a.failed != nil {
		return x.attemptFailed(a, a.failed)
	}
	if a.up != nil {
		return filter.Next // woken with one
	}
	if x.upgrade != nil && x.upgrade.Terminate {
		return x.on.dialTunnel(a)
	}
	return x.on.borrow(a)
}

// sendRequest queues the head and what is here of the body.
func (x *exchange) sendRequest() filter.Verdict {
	a := x.main
	a.send()
	x.Record.UpstreamRequest = x.since()
	x.hold(a.up.full())
	if x.down.full() {
		a.up.hold(true)
	}
	x.startMirrors()
	x.armTimeouts()
	return filter.Next
}

// awaitResponse waits for the head of the response, and decides on a retry.
func (x *exchange) awaitResponse() filter.Verdict {
	a := x.main
	if a == nil {
		return filter.Wait
	}
	if a.failed != nil {
		return x.attemptFailed(a, a.failed)
	}
	if !a.gotHead {
		return filter.Wait
	}
	if f := x.peerFailure(&x.Response, x.responseLast); f != nil {
		return x.attemptFailed(a, f)
	}
	if x.falseAgreement() {
		return x.attemptFailed(a, &failureNotSwitched)
	}
	if v, again := x.retryResponse(a); again {
		return v
	}
	x.endHedges()
	x.fellBack(a)
	x.keepAnswer(a)
	return filter.Next
}

// filterResponse edits the response's head and runs the response hooks.
func (x *exchange) filterResponse() filter.Verdict {
	hooks := x.manager.filters[x.w.index]
	i := len(hooks) - 1
	if x.wait.on {
		if v := x.goOnResponse(); v != filter.Next {
			return v
		}
		i = x.wait.hook - 1
	} else {
		x.dropBody()
		x.editResponseHead()
	}
	for ; i >= 0; i-- {
		if h := hooks[i].response; h != nil {
			if v := h.OnResponse(&x.Exchange); v != filter.Next {
				if v == filter.Wait {
					x.holdResponse(true)
				}
				return x.stop(v, i)
			}
		}
	}
	return filter.Next
}

// sendResponse sends the head downstream; the body follows by itself.
func (x *exchange) sendResponse() filter.Verdict {
	x.sendHead(x.responseLast)
	switch {
	case x.responseLast:
		x.responseEnded()
	case x.switches():
		x.openTunnel()
	}
	return filter.Wait
}

// sendHead starts the response downstream.
func (x *exchange) sendHead(last bool) {
	r := &x.Record
	r.Status = uint16(x.Response.Status)
	r.ResponseStart = x.since()
	if !x.local && r.Details == "" {
		r.Details = x.viaUpstream()
	}
	x.responseStarted = true
	x.down.sendHead(x, last)
}

// reply makes a failure the exchange's local reply.
func (x *exchange) reply(f *failure) filter.Verdict {
	x.Local = filter.LocalReply{Status: f.Status, Details: f.Details, Flags: f.Flag, Body: f.Body, GRPC: f.GRPC}
	return filter.Reply
}

// routeTable finds the table that this request is routed by.
func (x *exchange) routeTable() *routeTable {
	m := x.manager
	switch {
	case m.inline != nil:
		return m.inline
	case m.rds != nil:
		return m.rds.table.Load()
	}
	if s := m.scoped.Load(); s != nil {
		return x.scopedTable(s)
	}
	return nil
}

// requireTLS redirects plain requests to a virtual host that wants TLS.
func (x *exchange) requireTLS(vh *virtualHost) filter.Verdict {
	switch vh.res.RequireTLS {
	case resource.TLSNotRequired:
		return filter.Next
	case resource.TLSExternalOnly:
		if x.internal {
			return filter.Next
		}
	}
	if string(x.Request.Known(codec.NameXForwardedProto)) == "https" {
		return filter.Next
	}
	return x.redirect(&resource.Redirect{HTTPS: true, Status: 301})
}

// noteHost keeps what the record says of the endpoint tried last.
func (x *exchange) noteHost(h *lb.Host) {
	r := &x.Record
	r.HasUpstream = true
	r.UpstreamAddr = h.Dial()
	r.UpstreamPath = h.Path()
	r.UpstreamHostname = h.Hostname()
}
