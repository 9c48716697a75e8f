// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/sha1" //nolint:gosec // RFC 6455 says so
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// The opening handshake of WebSocket over HTTP/1.1 proves that the server knows
// WebSocket: it answers a key with its digest (RFC 6455 §4). Over HTTP/2 there is
// neither (RFC 8441 §5), but proxies that have an HTTP/1.1 client or server behind
// them pass both on, and so do we. What an end behind us needs and nobody gave, we
// give: a key to a server, the digest to a client.

const (
	webSocket        = "websocket"
	webSocketKey     = "sec-websocket-key"
	webSocketAccept  = "sec-websocket-accept"
	webSocketVersion = "sec-websocket-version"
	webSocketGUID    = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	maxWebSocketKey  = 64 // a key has 24 bytes
)

var errBadAccept = errors.New("101 with another digest than that of the key")

// keyWebSocket sees to it that a handshake over HTTP/1.1 has a key.
func (x *exchange) keyWebSocket() {
	h := &x.Request
	if !x.extended || !codec.EqualFold(h.UpgradeProtocol(), webSocket) || h.Get(webSocketKey) != nil {
		return
	}
	var nonce [16]byte
	binary.BigEndian.PutUint64(nonce[:], x.w.random.Uint64())
	binary.BigEndian.PutUint64(nonce[8:], x.w.random.Uint64())
	x.w.value = base64.StdEncoding.AppendEncode(x.w.value[:0], nonce[:])
	h.Set(webSocketKey, x.w.value)
	x.keyed = true
	if h.Get(webSocketVersion) == nil {
		h.Set(webSocketVersion, []byte("13"))
	}
}

// judgeWebSocket checks the answer to a key of ours, and takes it out: the client
// has asked for none.
func (x *exchange) judgeWebSocket(h *codec.ResponseHead) error {
	if !x.keyed {
		return nil
	}
	if string(h.Get(webSocketAccept)) != string(x.appendAccept(x.w.value[:0])) {
		return errBadAccept
	}
	h.Remove(webSocketAccept)
	return nil
}

// acceptWebSocket answers the key of a client for an endpoint that has agreed
// without, as one does that knows keys from HTTP/1.1 only.
func (x *exchange) acceptWebSocket(h *codec.ResponseHead) {
	if !codec.EqualFold(x.Request.UpgradeProtocol(), webSocket) || h.Get(webSocketAccept) != nil {
		return
	}
	if key := x.Request.Get(webSocketKey); len(key) > 0 && len(key) <= maxWebSocketKey {
		x.w.value = x.appendAccept(x.w.value[:0])
		h.Set(webSocketAccept, x.w.value)
	}
}

// appendAccept appends the digest of the request's key (RFC 6455 §4.2.2).
func (x *exchange) appendAccept(dst []byte) []byte {
	text := append(make([]byte, 0, maxWebSocketKey+len(webSocketGUID)), x.Request.Get(webSocketKey)...)
	sum := sha1.Sum(append(text, webSocketGUID...)) //nolint:gosec // see above
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}
