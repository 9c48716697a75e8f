// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// An inbound sidecar whose application is gone, or which is overloaded, answers 503 in
// its place. Only it knows whether the request may be sent elsewhere, so it says so in a
// header, and the outbound sidecar treats the answer like a failure of its own: what was
// not processed is tried again, what was reset only where that is idempotent.
const (
	peerHeader   = "x-outrigger-upstream-failure"
	peerConnect  = "connect"
	peerReset    = "reset"
	peerOverload = "overload"
)

// failurePeerOverloaded stands for the refusal of an endpoint's sidecar that is
// overloaded. The flag keeps proxies before us from trying it again by policy.
var failurePeerOverloaded = failure{
	Flag: record.UO, Status: 503, Details: "upstream_overloaded", Body: failureOverloaded.Body, Class: classOverloaded,
}

// tellPeer marks a reply of an inbound listener to a failed application, or in place of
// it.
func (x *exchange) tellPeer() {
	if x.manager.listener.Direction != resource.Inbound || x.Local.Status != 503 {
		return
	}
	// The flags are of more than one cluster where there is a fallback, and of the last
	// attempt only: what may have run, the exchange knows.
	const failed = record.UF | record.UC | record.UR
	switch flags := x.Record.Flags; {
	case flags&failed != 0 && x.mayHaveRun():
		x.Response.Set(peerHeader, []byte(peerReset))
	case flags&failed != 0: // no connection, one that broke before a byte was sent, or a refused stream
		x.Response.Set(peerHeader, []byte(peerConnect))
	case flags&record.OM != 0:
		x.Response.Set(peerHeader, []byte(peerOverload))
	}
}

// mayTell reports whether a response may be one that tellPeer has marked: of calls of
// gRPC those that are nothing but a head.
func (x *exchange) mayTell(h *codec.ResponseHead, last bool) bool {
	return h.Status == 503 || last && x.call.is
}

// stripPeerHeader removes the header from an application's own answer: only a
// sidecar may say it.
func (x *exchange) stripPeerHeader() {
	if x.mayTell(&x.Response, x.responseLast) {
		x.Response.Remove(peerHeader)
	}
}

// peerFailure is the failure that the sidecar of the endpoint reports; nil for none.
// last: nothing follows the head.
func (x *exchange) peerFailure(h *codec.ResponseHead, last bool) *failure {
	if x.manager.listener.Direction != resource.Outbound || !x.mayTell(h, last) {
		return nil
	}
	switch string(h.Get(peerHeader)) {
	case peerConnect:
		return &failurePeerConnect
	case peerReset:
		return &failureReset
	case peerOverload:
		return &failurePeerOverloaded
	}
	return nil
}
