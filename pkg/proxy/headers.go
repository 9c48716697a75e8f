// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/trace"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// prepareRequest checks and normalises the head before anything matches on it,
// and applies the rules for headers that only trusted peers may set.
func (x *exchange) prepareRequest() filter.Verdict {
	m, h := x.manager.res, &x.Request
	x.Record.Protocol = h.Protocol
	if x.overloaded() {
		return x.refuseOverloaded()
	}
	if h.Protocol == codec.HTTP10 && !m.Accept10 {
		return x.reply(&failureHTTP10)
	}
	if len(h.Authority()) == 0 {
		if h.Protocol != codec.HTTP10 || m.DefaultHost10 == "" {
			return x.reply(&failureNoHost)
		}
		h.SetAuthority([]byte(m.DefaultHost10))
	}
	if v := x.maxForwards(); v != filter.Next {
		return v
	}
	if v := x.normalisePath(); v != filter.Next {
		return v
	}
	x.stripHost()
	x.forwarded()
	x.clientCert()
	x.variants()
	x.noteCaller()
	x.requestID()
	return filter.Next
}

// maxForwards implements RFC 9110 §7.6.2 for TRACE and OPTIONS.
func (x *exchange) maxForwards() filter.Verdict {
	h := &x.Request
	if h.Method != codec.MethodTrace && h.Method != codec.MethodOptions {
		return filter.Next
	}
	v := h.Known(codec.NameMaxForwards)
	if v == nil {
		return filter.Next
	}
	n, err := strconv.ParseUint(string(v), 10, 31)
	switch {
	case err != nil:
		return x.reply(&failureMaxForwards)
	case n > 0:
		h.SetKnown(codec.NameMaxForwards, strconv.AppendUint(x.w.value[:0], n-1, 10))
		return filter.Next
	case h.Method == codec.MethodTrace:
		return x.reply(&failureTrace)
	}
	x.Local = filter.LocalReply{Status: 200, Details: "max_forwards"}
	return filter.Reply
}

// stripHost removes from the authority what the manager says, before matching.
func (x *exchange) stripHost() {
	m := x.manager.res
	if !m.StripAnyPort && !m.StripMatchingPort && !m.StripTrailingHostDot || x.Request.Method == codec.MethodConnect {
		return // the target of CONNECT is nothing without its port
	}
	a := x.Request.Authority()
	bare := withoutPort(a)
	port := a[len(bare):]
	if len(port) > 1 && (m.StripAnyPort || m.StripMatchingPort && string(port[1:]) == strconv.Itoa(int(x.Record.Local.Port()))) {
		port = nil
	}
	if m.StripTrailingHostDot && len(bare) > 1 && bare[len(bare)-1] == '.' {
		bare = bare[:len(bare)-1]
	}
	if len(bare)+len(port) != len(a) {
		x.w.rewrite = append(append(x.w.rewrite[:0], bare...), port...)
		x.Request.SetAuthority(x.w.rewrite)
	}
}

// untrusted are the headers that only the mesh itself may set: from anybody
// else they are removed (robustness: internal header trust).
var untrusted = [...]codec.Name{
	codec.NameXEnvoyInternal, codec.NameXEnvoyDownstreamServiceCluster, codec.NameXEnvoyDownstreamServiceNode,
	codec.NameXEnvoyRetryOn, codec.NameXEnvoyRetryGRPCOn, codec.NameXEnvoyMaxRetries, codec.NameXEnvoyUpstreamAltStatName,
	codec.NameXEnvoyUpstreamRequestTimeout, codec.NameXEnvoyUpstreamPerTryTimeout, codec.NameXEnvoyUpstreamTimeoutAltResponse,
	codec.NameXEnvoyExpectedRequestTimeout, codec.NameXEnvoyForceTrace, codec.NameXEnvoyIPTags, codec.NameXEnvoyOriginalPath,
	codec.NameXEnvoyRetriableStatusCodes, codec.NameXEnvoyRetriableHeaderNames, codec.NameXEnvoyDecoratorOperation,
	codec.NameXEnvoyAttemptCount, codec.NameXEnvoyExternalAddress, codec.NameXEnvoyHedgeOnPerTryTimeout,
}

// forwarded applies the rules for x-forwarded-*, x-envoy-internal and
// x-envoy-external-address (Envoy's edge and internal rules).
func (x *exchange) forwarded() {
	m, h := x.manager.res, &x.Request
	remote := x.Record.Remote.Addr()
	xff := h.Known(codec.NameXForwardedFor)
	client := remote
	if !m.UseRemoteAddress || m.XFFTrustedHops > 0 {
		if a, ok := trustedClient(h, m.XFFTrustedHops, m.UseRemoteAddress, &x.w.joined); ok {
			client = a
			x.Record.Remote = netip.AddrPortFrom(a, 0)
		}
	}
	// Whoever connects is what counts: a header alone makes nobody internal.
	x.internal = x.isInternal(remote) && x.isInternal(client) && (m.UseRemoteAddress || !manyHops(h, xff))
	if !x.internal {
		x.askedRetries()
		for i := range untrusted {
			if h.HasKnown(untrusted[i]) {
				h.RemoveKnown(untrusted[i])
			}
		}
	}
	if m.UseRemoteAddress {
		x.edge(client)
	}
	if !m.SkipXFFAppend && m.UseRemoteAddress && remote.IsValid() {
		b, had := h.AppendJoined(x.w.value[:0], "x-forwarded-for")
		if had {
			b = append(b, ',')
		}
		b = remote.Unmap().AppendTo(b)
		x.w.value = b
		h.SetKnown(codec.NameXForwardedFor, b)
	}
	if p := h.Known(codec.NameXForwardedProto); p == nil || (m.UseRemoteAddress && m.XFFTrustedHops == 0) || !validProto(p) {
		proto := httpText
		if x.Record.Security != nil {
			proto = httpsText
		}
		h.SetKnown(codec.NameXForwardedProto, proto)
	}
	if m.Via != "" {
		h.AddKnown(codec.NameVia, []byte(m.Via))
	}
}

// manyHops reports whether x-forwarded-for, whose first field is xff, lists more
// than one address, in one field or in several.
func manyHops(h *codec.RequestHead, xff []byte) bool {
	if xff == nil {
		return false
	}
	return bytes.IndexByte(xff, ',') >= 0 || h.Index("x-forwarded-for", h.Index("x-forwarded-for", 0)+1) >= 0
}

var (
	httpText  = []byte("http")
	httpsText = []byte("https")
	trueText  = []byte("true")
)

func validProto(p []byte) bool { return codec.EqualFold(p, "http") || codec.EqualFold(p, "https") }

// edge sets what an edge proxy says of the client.
func (x *exchange) edge(client netip.Addr) {
	h := &x.Request
	if x.internal {
		h.SetKnown(codec.NameXEnvoyInternal, trueText)
		return
	}
	if client.IsValid() {
		b := client.Unmap().AppendTo(x.w.value[:0])
		x.w.value = b
		h.SetKnown(codec.NameXEnvoyExternalAddress, b)
	}
}

// isInternal: this host's own applications and Unix peers, and the ranges that
// the configuration trusts. Private ranges are not trusted by themselves.
func (x *exchange) isInternal(a netip.Addr) bool {
	if !a.IsValid() || a.Unmap().IsLoopback() {
		return true
	}
	for _, p := range x.manager.internal {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// trustedClient is the address that the given number of trusted hops saw.
func trustedClient(h *codec.RequestHead, hops int, useRemote bool, scratch *[]byte) (netip.Addr, bool) {
	v, ok := joinedValue(&h.Header, "x-forwarded-for", scratch)
	if !ok {
		return netip.Addr{}, false
	}
	skip := hops
	if useRemote {
		skip = hops - 1
	}
	for ; skip > 0; skip-- {
		i := bytes.LastIndexByte(v, ',')
		if i < 0 {
			return netip.Addr{}, false
		}
		v = v[:i]
	}
	if i := bytes.LastIndexByte(v, ','); i >= 0 {
		v = v[i+1:]
	}
	return parseIP(bytes.TrimSpace(v))
}

// requestID makes or keeps x-request-id.
func (x *exchange) requestID() {
	m, h := x.manager.res, &x.Request
	have := h.Known(codec.NameXRequestID)
	edge := m.UseRemoteAddress && !x.internal
	if !m.GenerateRequestID || (have != nil && (!edge || m.PreserveRequestID)) {
		return
	}
	b := trace.AppendRequestID(x.w.value[:0], x.Random, x.w.random.Uint64())
	x.w.value = b
	h.SetKnown(codec.NameXRequestID, b)
}

// startTrace continues or begins the trace and injects its context.
func (x *exchange) startTrace() {
	m := x.manager
	if m.tracing != nil {
		m.tracing.Start(&x.Request, &x.Record.Trace, x.w.random, x.internal)
		x.decorate()
		if x.Record.HealthCheck { // of no interest to anybody
			x.Record.Trace.Sampled = false
			x.unsample()
		}
	}
}

const maxOperation = 256 // bytes

// decorate names the span of a request from outside of this host as the proxy before
// says, which only trusted peers may. The header goes no further.
func (x *exchange) decorate() {
	t := &x.Record.Trace
	op := x.Request.Known(codec.NameXEnvoyDecoratorOperation)
	if op == nil || t.Client {
		return
	}
	if t.Sampled && len(op) > 0 && len(op) <= maxOperation { // nobody else sees it
		x.Record.Operation = string(op)
	}
	x.Request.RemoveKnown(codec.NameXEnvoyDecoratorOperation)
}

// readTimeouts joins the route's timeouts with the headers of trusted peers, and with
// what a call of gRPC asks for.
func (x *exchange) readTimeouts() {
	h, a := &x.Request, x.route.action.res
	x.retry.timeout, x.retry.perTry = a.Timeout, 0
	if p := x.route.action.retry; p != nil {
		x.retry.perTry = p.PerTryTimeout
	}
	if x.call.is = grpc.Is(&h.Header); x.call.is {
		x.setDeadline()
	}
	if ms, ok := takeMillis(h, codec.NameXEnvoyUpstreamRequestTimeout); ok {
		x.retry.timeout = ms
	}
	if ms, ok := takeMillis(h, codec.NameXEnvoyUpstreamPerTryTimeout); ok {
		x.retry.perTry = ms
	}
	if h.HasKnown(codec.NameXEnvoyUpstreamTimeoutAltResponse) {
		x.retry.altTimeout = true
		h.RemoveKnown(codec.NameXEnvoyUpstreamTimeoutAltResponse)
	}
	if x.retry.perTry > 0 && x.retry.timeout > 0 && x.retry.perTry >= x.retry.timeout {
		x.retry.perTry = 0
	}
}

// setTimeoutHeaders reads the per-request overrides of trusted peers, and tells
// the upstream how long we wait.
func (x *exchange) setTimeoutHeaders() {
	x.readTimeouts()
	h := &x.Request
	expected := x.retry.timeout
	if x.retry.perTry > 0 {
		expected = x.retry.perTry
	}
	if x.call.deadline != 0 {
		left := max(time.Duration(x.call.deadline-x.w.loop.Now()), time.Millisecond)
		if expected <= 0 || left < expected {
			expected = left
		}
	}
	if expected > 0 && !x.manager.router.SuppressEnvoyHeaders {
		b := strconv.AppendInt(x.w.value[:0], int64(expected/time.Millisecond), 10)
		x.w.value = b
		h.SetKnown(codec.NameXEnvoyExpectedRequestTimeout, b)
	}
}

// invalidStrictHeader names a header of the router's strict_check_headers whose
// value is not valid, "" for none.
func (x *exchange) invalidStrictHeader() string {
	for _, name := range x.manager.router.StrictHeaders {
		v := x.Request.Get(name)
		if v == nil {
			continue
		}
		switch name {
		case "x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-rq-per-try-timeout-ms", "x-envoy-max-retries":
			if _, err := strconv.ParseUint(string(v), 10, 31); err != nil {
				return name
			}
		case "x-envoy-retry-on":
			for part := range bytes.SplitSeq(v, []byte(",")) {
				if parseRetryOn(part) == 0 {
					return name
				}
			}
		}
	}
	return ""
}

func takeMillis(h *codec.RequestHead, id codec.Name) (time.Duration, bool) {
	v := h.Known(id)
	if v == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(string(v), 10, 31)
	h.RemoveKnown(id)
	return time.Duration(n) * time.Millisecond, err == nil
}

// setAttemptCount tells the upstream which attempt this is.
func (x *exchange) setAttemptCount(n int) {
	if x.route.vhost.res.RequestAttemptCount {
		b := strconv.AppendInt(x.w.value[:0], int64(n), 10)
		x.w.value = b
		x.Request.SetKnown(codec.NameXEnvoyAttemptCount, b)
	}
}

// editResponseHead makes an upstream's response head what downstream is to see.
func (x *exchange) editResponseHead() {
	h := &x.Response
	x.Record.Status = uint16(h.Status)
	x.stripPeerHeader()
	x.tellRetried()
	if x.Record.UpstreamResponse >= 0 && !x.local && !x.manager.router.SuppressEnvoyHeaders {
		ms := (x.Record.UpstreamResponse - x.Record.UpstreamRequest) / int64(time.Millisecond)
		b := strconv.AppendInt(x.w.value[:0], ms, 10)
		x.w.value = b
		h.SetKnown(codec.NameXEnvoyUpstreamServiceTime, b)
	}
	if x.route != nil && x.route.vhost.res.ResponseAttemptCount && x.Record.Attempts > 0 {
		b := strconv.AppendInt(x.w.value[:0], int64(x.Record.Attempts), 10)
		x.w.value = b
		h.SetKnown(codec.NameXEnvoyAttemptCount, b)
	}
	x.responseEdits()
	x.commonResponse()
}

// responseEdits applies the configured header edits, most specific first.
func (x *exchange) responseEdits() {
	if x.route == nil {
		return
	}
	if x.weighted != nil {
		if e := &x.weighted.res.HeaderEdits; !e.Empty() {
			x.editResponse(e)
		}
	}
	for _, e := range x.route.edits {
		x.editResponse(e)
	}
}

// commonResponse is done to every response, also our own.
func (x *exchange) commonResponse() {
	h, m := &x.Response, x.manager
	switch m.res.ServerHeader {
	case resource.ServerOverwrite:
		h.SetKnown(codec.NameServer, m.server)
	case resource.ServerAppendIfAbsent:
		if !h.HasKnown(codec.NameServer) {
			h.AddKnown(codec.NameServer, m.server)
		}
	}
	if m.res.AlwaysSetRequestID {
		if id := x.Request.Known(codec.NameXRequestID); id != nil {
			h.SetKnown(codec.NameXRequestID, id)
		}
	}
	if m.res.Via != "" {
		h.AddKnown(codec.NameVia, []byte(m.res.Via))
	}
	if x.setCookie != nil {
		h.AddKnown(codec.NameSetCookie, x.setCookie)
	}
}

func appendUint(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }

// parseIP parses an address from bytes that come from outside.
func parseIP(b []byte) (netip.Addr, bool) {
	if len(b) > 45 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(string(b))
	return a, err == nil
}
