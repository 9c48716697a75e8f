// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"net"
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/proxyproto"
)

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

// searchedBytes bounds what is searched for what a TCP check is to receive.
const searchedBytes = 64 << 10

// askTCP sends what is to be sent and waits for what is to come. Without either a
// connection that has opened is enough.
func (a *attempt) askTCP(l *link) (r Result, keep bool, err error) {
	if len(a.check.Send) == 0 && len(a.check.Receive) == 0 {
		return Result{Outcome: Passed}, false, nil
	}
	if _, err := l.conn.Write(a.check.Send); err != nil {
		return r, false, err
	}
	if len(a.check.Receive) == 0 {
		return Result{Outcome: Passed}, true, nil
	}
	buf := make([]byte, 0, 1024)
	for len(buf) < searchedBytes {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := l.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case contains(buf, a.check.Receive):
			return Result{Outcome: Passed}, true, nil
		case err != nil:
			return r, false, err
		}
	}
	return Result{Outcome: Refused, Reason: "what it is to answer is not among the first 64 KiB"}, false, nil
}

// contains reports whether the parts are in b, in this order, with anything between.
func contains(b []byte, parts [][]byte) bool {
	for _, p := range parts {
		i := bytes.Index(b, p)
		if i < 0 {
			return false
		}
		b = b[i+len(p):]
	}
	return true
}

// proxyHeader is the PROXY header of a connection of our own: v1 names its addresses,
// v2 says LOCAL, as Envoy's.
func proxyHeader(version int, c net.Conn) []byte {
	if version == 2 {
		return []byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
	}
	addr := func(a net.Addr) netip.AddrPort {
		t, ok := a.(*net.TCPAddr)
		if !ok {
			return netip.AddrPort{}
		}
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return proxyproto.AppendV1(nil, addr(c.LocalAddr()), addr(c.RemoteAddr()))
}
