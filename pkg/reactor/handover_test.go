// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"net/netip"
	"testing"
)

func TestAHandlerThatTakesOverSeesWhatWasLeftAndTheEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		for _, left := range []string{"all of it", ""} {
			near, first := r.pairOn(t)
			took := 0
			first.onData = func([]byte) int { took++; return max(2-took, 0) } // the first byte
			near.c.Write([]byte("!" + left))
			near.c.CloseWrite()
			r.until("the first handler's end", func() bool { return first.eof })
			second := &script{name: "second", c: first.c}
			first.c.HandOver(second)
			if second.datas > 0 || second.eof {
				t.Fatal("called from inside HandOver")
			}
			first.c.Pause()
			r.settle()
			if second.datas > 0 || second.eof {
				t.Fatal("called while reading is paused")
			}
			order := ""
			second.onData = func(in []byte) int { order += string(in); return len(in) }
			second.onEOF = func() { order += "$" }
			first.c.Resume()
			r.until("the second handler's end", func() bool { return second.eof })
			r.settle()
			if order != left+"$" {
				t.Errorf("the second handler saw %q", order)
			}
			second.c.CloseWrite()
			r.until("the close", func() bool { return second.closes == 1 })
			if first.closes != 0 {
				t.Error("the first handler was told of the close")
			}
		}
	})
}

func TestAddressesThatWereToldCoverTheSockets(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		direct, own := far.c.RemoteAddr(), far.c.LocalAddr()
		if to := far.c.OriginalDst(); to.IsValid() && to != own {
			t.Errorf("a connection to %v was going to %v", own, to)
		}
		from := netip.MustParseAddrPort("[::ffff:192.0.2.1]:5")
		far.c.SetAddrs(netip.AddrPort{}, from)
		if far.c.LocalAddr() != own || far.c.Restored() || far.c.RemoteAddr() != netip.MustParseAddrPort("192.0.2.1:5") || far.c.DirectRemoteAddr() != direct {
			t.Errorf("from %v: %v, %v, %v", from, far.c.LocalAddr(), far.c.RemoteAddr(), far.c.DirectRemoteAddr())
		}
		to := netip.MustParseAddrPort("10.0.0.1:443")
		far.c.SetAddrs(to, netip.AddrPort{})
		if far.c.LocalAddr() != to || !far.c.Restored() || far.c.DirectRemoteAddr() != direct {
			t.Errorf("to %v: %v, %v", to, far.c.LocalAddr(), far.c.DirectRemoteAddr())
		}
		if near.c.DirectRemoteAddr() != near.c.RemoteAddr() || near.c.Restored() {
			t.Error("the other end was told, too")
		}
	})
}
