// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Connections that are dialled and that are accepted have the loop's bound, those of
// listeners that were there before as well.
func TestSocketsAreBounded(t *testing.T) {
	l, err := NewLoop(Config{})
	if err != nil {
		t.Fatal(err)
	}
	set, err := NewSockets(nil).Open(TCPAddr(netip.MustParseAddrPort("127.0.0.1:0")), 1, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Release()
	defer func() {
		l.StopOffLoop()
		for l.Tick(0) {
		}
	}()
	var got *Conn
	accept := accepting(func(c *Conn) Handler {
		got = c
		return idle{}
	})
	if _, err := l.AddListener(set.Socket(0), accept); err != nil {
		t.Fatal(err)
	}
	for _, bound := range []int{32 << 10, 8 << 10} {
		l.SetBounds(Bounds{Socket: bound})
		got = nil
		dialled, err := l.Dial(set.Addr(), DialOptions{}, idle{})
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; got == nil && i < 1000; i++ {
			l.Tick(10e6)
		}
		for _, c := range []*Conn{dialled, got} {
			for _, o := range [][3]int{{unix.SOL_SOCKET, unix.SO_RCVBUF, 2 * bound}, {unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * bound}, {unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bound / 2}} {
				if n, err := unix.GetsockoptInt(int(c.fd), o[0], o[1]); n != o[2] || err != nil {
					t.Errorf("bound %d: option %d of %s is %d, %v, want %d", bound, o[1], c.LocalAddr(), n, err, o[2])
				}
			}
		}
	}
}

type accepting func(*Conn) Handler

func (a accepting) OnAccept(c *Conn) Handler { return a(c) }

type idle struct{}

func (idle) OnConnect(*Conn)              {}
func (idle) OnData(_ *Conn, b []byte) int { return len(b) }
func (idle) OnEOF(*Conn)                  {}
func (idle) OnHighWater(*Conn)            {}
func (idle) OnLowWater(*Conn)             {}
func (idle) OnClose(*Conn, error)         {}
