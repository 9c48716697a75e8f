// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// A WebSocket whose drain time is over gets a Close frame on both sides, between two
// frames of those that it carries, so that both ends know that the connection and not
// the conversation is over. Where frames end cannot be known from the middle: they are
// followed from the beginning on, by their heads alone.

// webSocketPart is the part of the drain time that frames have which are under way when
// a Close frame is due.
const webSocketPart = 16

// webTunnel is what an exchange knows of a WebSocket that it carries.
type webTunnel struct {
	on         bool
	leaves     bool // a Close frame is due in each direction
	told       bool // one was sent
	fromClient webFrames
	fromServer webFrames
}

// followWebSocket begins to follow the frames of a tunnel that opens.
func (x *exchange) followWebSocket() {
	x.web = webTunnel{on: codec.EqualFold(x.Request.UpgradeProtocol(), webSocket)}
	x.web.fromClient.masked = true
}

// fromWebClient is what of the client's bytes goes on.
func (x *exchange) fromWebClient(b []byte) []byte { return x.web.passed(&x.web.fromClient, b) }

// fromWebServer is what of the endpoint's bytes goes on.
func (x *exchange) fromWebServer(b []byte) []byte { return x.web.passed(&x.web.fromServer, b) }

// passed is what of one end's bytes goes on.
func (t *webTunnel) passed(f *webFrames, b []byte) []byte {
	switch {
	case f.cut:
		return nil
	case !t.leaves:
		f.pass(b)
		return b
	}
	return b[:f.step(b)]
}

// leaveWebSocket begins the end of a WebSocket. It reports how long that may take, 0 where
// there is nothing to wait for, and whether the exchange is over already: then it may have
// been given back.
func (x *exchange) leaveWebSocket() (wait time.Duration, over bool) {
	if !x.web.on || x.web.leaves || x.tunnel != tunnelOpen {
		return 0, false
	}
	x.web.leaves = true
	w := x.w
	if x.closeWebSocket() {
		return 0, true
	}
	return w.proxy.options.DrainTime / webSocketPart, false
}

// closeWebSocket sends the Close frames that can be sent now, and ends the tunnel once
// no more of them is due. It reports whether it has ended the exchange.
func (x *exchange) closeWebSocket() bool {
	if !x.web.leaves || x.ended {
		return false
	}
	if f := &x.web.fromServer; !f.cut && (f.lost || x.upstreamEnded || f.between()) {
		f.cut = true
		if !f.lost && !f.closed && !x.upstreamEnded {
			x.tellClient()
		}
	}
	if f := &x.web.fromClient; !f.cut && (f.lost || x.clientEnded || f.between()) {
		f.cut = true
		if !f.lost && !f.closed && !x.clientEnded {
			x.tellServer()
		}
	}
	if !x.web.fromServer.cut || !x.web.fromClient.cut {
		return false
	}
	x.w.stats.upgradesDrained++
	x.fail(&failureDrained)
	return true
}

// noteClose counts a WebSocket with the first of its Close frames.
func (x *exchange) noteClose() {
	if !x.web.told {
		x.web.told = true
		x.w.stats.webSocketsClosed++
	}
}

func (x *exchange) tellClient() {
	x.noteClose()
	x.w.value = appendGoingAway(x.w.value[:0], false, 0)
	x.Record.BytesSent += uint64(len(x.w.value))
	x.down.sendData(x, x.w.value, false)
}

func (x *exchange) tellServer() {
	x.noteClose()
	x.w.value = appendGoingAway(x.w.value[:0], true, uint32(x.w.random.Uint64()))
	x.main.sendData(x.w.value, false)
}
