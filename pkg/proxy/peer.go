// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// An inbound sidecar whose application is gone answers 503 in its place. Only it
// knows whether the request may be sent elsewhere, so it says so in a header, and
// the outbound sidecar treats the answer like a failure of its own: what was not
// processed is tried again, what was reset only where that is idempotent.
const (
	peerHeader  = "x-outrigger-upstream-failure"
	peerConnect = "connect"
	peerReset   = "reset"
)

// tellPeer marks a reply of an inbound listener to a failed application.
func (x *exchange) tellPeer() {
	if x.manager.listener.Direction != resource.Inbound || x.Response.Status != 503 {
		return
	}
	switch flags := x.Record.Flags; {
	case flags&record.UF != 0:
		x.Response.Set(peerHeader, []byte(peerConnect))
	case flags&record.UC != 0:
		x.Response.Set(peerHeader, []byte(peerReset))
	}
}

// stripPeerHeader removes the header from an application's own answer: only a
// sidecar may say it.
func (x *exchange) stripPeerHeader() {
	if x.Response.Status == 503 {
		x.Response.Remove(peerHeader)
	}
}

// peerFailure is the failure that the sidecar of the endpoint reports; nil for none.
func (x *exchange) peerFailure(h *codec.ResponseHead) *failure {
	if h.Status != 503 || x.manager.listener.Direction != resource.Outbound {
		return nil
	}
	switch string(h.Get(peerHeader)) {
	case peerConnect:
		return &failurePeerConnect
	case peerReset:
		return &failureReset
	}
	return nil
}
