// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
)

// ends are two addresses for each number.
func endsOf(i uint32) (local, remote netip.AddrPort) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 0x0a000000+i/1000)
	return netip.AddrPortFrom(netip.MustParseAddr("10.77.0.1"), uint16(30000+i%1000)), netip.AddrPortFrom(netip.AddrFrom4(b), 80)
}

func TestDialledConnectionsAreKnownByBothEndsUntilTheyClose(t *testing.T) {
	var e Ends
	local, remote := endsOf(1)
	_, elsewhere := endsOf(5000)
	other := netip.AddrPortFrom(local.Addr(), local.Port()+1)
	if e.Dialled(local, remote) || e.From(local) {
		t.Error("known before it is dialled")
	}
	e.add(local, remote)
	mapped := netip.AddrPortFrom(netip.AddrFrom16(local.Addr().As16()), local.Port())
	if !e.Dialled(local, remote) || !e.Dialled(mapped, remote) || !e.From(local) {
		t.Error("not known")
	}
	if e.Dialled(local, elsewhere) || e.Dialled(other, remote) || e.Dialled(remote, local) || e.From(other) {
		t.Error("another is taken for it")
	}
	e.add(local, elsewhere) // the same port goes to another destination, too
	e.remove(local, remote)
	if e.Dialled(local, remote) || !e.Dialled(local, elsewhere) || !e.From(local) {
		t.Error("the other has gone with it")
	}
	e.remove(local, elsewhere)
	if e != (Ends{}) {
		t.Error("something is left")
	}
}

func TestTheNewestEndsAreKnownWhereThereIsNoRoom(t *testing.T) {
	var e Ends
	const n = 3 * endSlots
	for i := range uint32(n) {
		local, remote := endsOf(i)
		if e.add(local, remote); !e.Dialled(local, remote) {
			t.Fatalf("%d is not known", i)
		}
	}
	for i := range uint32(n) {
		e.remove(endsOf(i))
	}
	if e != (Ends{}) {
		t.Error("something is left")
	}
}

func TestNoEndsKnowNothing(t *testing.T) {
	var e *Ends
	local, remote := endsOf(1)
	e.add(local, remote)
	if e.Dialled(local, remote) || e.From(local) || new(Ends).Dialled(netip.AddrPort{}, remote) {
		t.Error("something is known")
	}
	e.remove(local, remote)
}

func TestEndsAreOfManyLoops(t *testing.T) {
	var e Ends
	var loops sync.WaitGroup
	for k := range uint32(4) {
		loops.Go(func() {
			for i := range uint32(1000) {
				local, remote := endsOf(k*10000 + i%100)
				e.add(local, remote)
				e.From(local)
				e.remove(local, remote)
			}
		})
	}
	loops.Wait()
	if e != (Ends{}) {
		t.Error("something is left")
	}
}
