// SPDX-License-Identifier: Apache-2.0

//go:build !race

package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestAMessageInATunnelAllocatesNothing(t *testing.T) {
	b := scripted(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, agreed)
		_, _ = io.Copy(c, r)
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		s.Listeners["l"].FilterChains[0].HTTP.Upgrades = []resource.Upgrade{{Type: "websocket", Enabled: true}}
	})
	c := r.dial()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, ask); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	message := make([]byte, 1000)
	allocatesNothing(t, func() {
		if _, err := c.Write(message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(in, message); err != nil {
			t.Fatal(err)
		}
	})
}

// allocatesNothing measures the whole process.
func allocatesNothing(t *testing.T, one func()) {
	t.Helper()
	for range 1000 {
		one()
	}
	const n = 3000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		one()
	}
	runtime.ReadMemStats(&after)
	if per := float64(after.Mallocs-before.Mallocs) / n; per > 0.02 {
		t.Errorf("%.4f allocations per message, want none", per)
	}
}

// echoes is an end of one HTTP/2 stream over a socket, without allocations of its
// own.
type echoes struct {
	script
	conn net.Conn
	out  []byte
	in   []byte
	n    int
	back bool // sends what it gets
}

func (e *echoes) Data(id uint32, b []byte, _ bool) error {
	e.n += len(b)
	e.codec.Consumed(id, len(b))
	if e.back {
		e.out = e.codec.AppendData(e.out, id, b, false)
	}
	return nil
}

func (e *echoes) RequestHead(id uint32, _ *codec.RequestHead, _ bool) error {
	e.id = id
	e.out = e.codec.AppendResponse(e.out, id, &codec.ResponseHead{Status: 200, BodyLength: codec.BodyChunked}, false)
	return nil
}

// turn writes what there is, and reads once.
func (e *echoes) turn() error {
	e.out = e.codec.AppendPending(e.out)
	if _, err := e.conn.Write(e.out); err != nil {
		return err
	}
	e.out = e.out[:0]
	n, err := e.conn.Read(e.in[len(e.in):cap(e.in)])
	if err != nil {
		return err
	}
	e.in = e.in[:len(e.in)+n]
	n, err = e.codec.Decode(e.in, 1, e)
	e.in = e.in[:copy(e.in, e.in[n:])]
	return err
}

func newEchoes(c net.Conn, role http2.Role) *echoes {
	e := &echoes{conn: c, in: make([]byte, 0, 64<<10), out: make([]byte, 0, 64<<10), back: role == http2.Server}
	e.wireEnd = &wireEnd{codec: http2.New(role, http2.Limits{AllowConnect: true})}
	return e
}

func TestAMessageInATunnelOfHTTP2AllocatesNothing(t *testing.T) {
	b := scripted(t, func(c net.Conn) {
		for e := newEchoes(c, http2.Server); e.turn() == nil; {
		}
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b).HTTP2 = true
		m := s.Listeners["l"].FilterChains[0].HTTP
		m.Upgrades, m.HTTP2.AllowConnect = []resource.Upgrade{{Type: "websocket", Enabled: true}}, true
	})
	c := r.dial()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	e := newEchoes(c, http2.Client)
	turn := func() {
		if err := e.turn(); err != nil {
			t.Fatal(err)
		}
	}
	for !e.codec.ExtendedConnect() {
		turn()
	}
	var h codec.RequestHead
	h.SetAuthority([]byte("x"))
	h.SetPath([]byte("/chat"))
	h.SetUpgrade([]byte("websocket"))
	e.id, _ = e.codec.NewStream()
	for e.out = e.codec.AppendRequest(e.out, e.id, &h, false); e.head == ""; {
		turn()
	}
	if !e.has("200") {
		t.Fatal(e.head)
	}
	message := make([]byte, 1000)
	allocatesNothing(t, func() {
		e.out = e.codec.AppendData(e.out, e.id, message, false)
		for want := e.n + len(message); e.n < want; {
			turn()
		}
	})
}
