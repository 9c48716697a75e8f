// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
)

// Ends are the connections that the loops of a process have dialled and not closed, each
// by the addresses of both of its ends, so that one which a rule of the kernel leads back
// to the process is known when it is accepted. The newest are known: there is room for
// 4096 (32 KiB), and more take the places of others, which have been accepted long ago. A
// nil Ends knows none; the zero value is ready. Its methods may be called from anywhere.
type Ends struct {
	slots [endSlots]atomic.Uint64 // 0: free
}

const (
	endSlots  = 4096
	endProbes = 8 // places that one connection may have
)

// Dialled reports whether a connection from local to remote is one of them. It may be
// wrong for one in 2^60 others.
func (e *Ends) Dialled(local, remote netip.AddrPort) bool {
	if e == nil || !local.IsValid() || !remote.IsValid() {
		return false
	}
	at, key := endKey(local, remote)
	for i := range uint64(endProbes) {
		if e.slots[(at+i)%endSlots].Load() == key {
			return true
		}
	}
	return false
}

// From reports whether one of them may have that local address. It is right where there
// is one, and may be wrong for one in 2^40 others: a cheap first look.
func (e *Ends) From(local netip.AddrPort) bool {
	if e == nil || !local.IsValid() {
		return false
	}
	at, key := endKey(local, netip.AddrPort{})
	for i := range uint64(endProbes) {
		if e.slots[(at+i)%endSlots].Load()>>32 == key>>32 {
			return true
		}
	}
	return false
}

func (e *Ends) add(local, remote netip.AddrPort) {
	if e == nil || !local.IsValid() || !remote.IsValid() {
		return
	}
	at, key := endKey(local, remote)
	for i := range uint64(endProbes) {
		if e.slots[(at+i)%endSlots].CompareAndSwap(0, key) {
			return
		}
	}
	e.slots[at%endSlots].Store(key)
}

func (e *Ends) remove(local, remote netip.AddrPort) {
	if e == nil || !local.IsValid() || !remote.IsValid() {
		return
	}
	at, key := endKey(local, remote)
	for i := range uint64(endProbes) {
		if e.slots[(at+i)%endSlots].CompareAndSwap(key, 0) {
			return
		}
	}
}

// endKey is where the places of a connection begin, which its local address decides, and
// what stands there: 32 bits of the local address and 32 of the remote one, not 0.
func endKey(local, remote netip.AddrPort) (at, key uint64) {
	l := hashEnd(local)
	return l, l>>32<<32 | uint64(uint32(hashEnd(remote))|1)
}

func hashEnd(a netip.AddrPort) uint64 {
	b := a.Addr().As16() // IPv4 and the same in IPv6 alike; zones do not count
	h := scatter(binary.LittleEndian.Uint64(b[:8])) ^ binary.LittleEndian.Uint64(b[8:])
	return scatter(scatter(h) ^ uint64(a.Port()))
}

// scatter spreads every bit over all (the finalizer of SplitMix64).
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
