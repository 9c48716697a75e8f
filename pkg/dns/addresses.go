// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// The ranges that virtual addresses come from by default: a part of class E, which
// nobody routes, and a unique local network (RFC 4193).
var (
	DefaultRange4 = netip.MustParsePrefix("240.240.0.0/16")
	DefaultRange6 = netip.MustParsePrefix("fd6f:7574:7269::/64")
)

// maxNames bounds how many names ever get an address.
const maxNames = 65_536

// maxNameBytes is the longest name (RFC 1035, 2.3.4).
const maxNameBytes = 253

// ErrExhausted: no address of the range is free.
var ErrExhausted = errors.New("no virtual address is free")

// Addresses gives each name a virtual address, for ever. The place follows from the
// name's hash, and where another name has it already, from the next free one; a
// file keeps such decisions over restarts. Any goroutine may use it.
type Addresses struct {
	range4, range6 netip.Prefix
	size           uint32 // places; place 0 is never used

	mu      sync.Mutex
	byName  map[string]uint32
	byPlace map[uint32]string
	file    *os.File // nil: not kept
}

// OpenAddresses uses the ranges, of which range4 must have 4 to 24 bits for hosts and range6 at
// least as many, and the file at path, which is made where there is none; an empty path keeps nothing.
func OpenAddresses(range4, range6 netip.Prefix, path string) (*Addresses, error) {
	bits4 := 32 - range4.Bits()
	switch {
	case !range4.Addr().Is4() || range4.Masked() != range4 || bits4 < 4 || bits4 > 24:
		return nil, fmt.Errorf("range %s: want an IPv4 network of /8 to /28", range4)
	case !range6.Addr().Is6() || range6.Addr().Is4In6() || range6.Masked() != range6 || 128-range6.Bits() < bits4:
		return nil, fmt.Errorf("range %s: want an IPv6 network of at most /%d", range6, 128-bits4)
	}
	a := &Addresses{
		range4: range4, range6: range6, size: 1 << bits4,
		byName: map[string]uint32{}, byPlace: map[uint32]string{},
	}
	if path == "" {
		return a, nil
	}
	return a, a.open(path)
}

// open reads "NAME ADDRESS" lines. A line that was cut by a crash, or that belongs
// to another range, is left out: its name gets a place anew.
func (a *Addresses) open(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, fs.FileMode(0o600))
	if err != nil {
		return fmt.Errorf("virtual addresses: %w", err)
	}
	s := bufio.NewScanner(f)
	for s.Scan() && len(a.byName) < maxNames {
		name, text, _ := strings.Cut(s.Text(), " ")
		ip, err := netip.ParseAddr(text)
		if err != nil || !a.range4.Contains(ip) || name == "" || len(name) > maxNameBytes {
			continue
		}
		place := a.placeOf(ip)
		if _, taken := a.byPlace[place]; taken || place == 0 || place == a.size-1 {
			continue
		}
		if _, known := a.byName[name]; !known {
			a.byName[name], a.byPlace[place] = place, name
		}
	}
	if err := s.Err(); err != nil {
		_ = f.Close()
		return fmt.Errorf("virtual addresses: %s: %w", path, err)
	}
	a.file = f
	_, err = f.WriteString("\n") // ends a line that a crash has cut
	return err
}

// Close closes the file.
func (a *Addresses) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	f := a.file
	a.file = nil
	return f.Close()
}

// Of returns the addresses of a name, which is in lower case without a final dot.
func (a *Addresses) Of(name string) (v4, v6 netip.Addr, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	place, ok := a.byName[name]
	if !ok {
		if place, err = a.take(name); err != nil {
			return v4, v6, err
		}
	}
	return a.at(a.range4, place), a.at(a.range6, place), nil
}

// NameOf returns the name that an address belongs to.
func (a *Addresses) NameOf(ip netip.Addr) (name string, ok bool) {
	ip = ip.Unmap()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.range4.Contains(ip) && !a.range6.Contains(ip) {
		return "", false
	}
	place := a.placeOf(ip)
	r := a.range4
	if ip.Is6() {
		r = a.range6
	}
	name, ok = a.byPlace[place]
	return name, ok && a.at(r, place) == ip
}

// take finds a place. The network's first and last address stay free.
func (a *Addresses) take(name string) (uint32, error) {
	usable := a.size - 2
	if len(a.byName) >= maxNames || uint32(len(a.byName)) >= usable || len(name) > maxNameBytes {
		return 0, ErrExhausted
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	place := uint32(h.Sum64()%uint64(usable)) + 1
	for a.byPlace[place] != "" {
		place = place%usable + 1
	}
	a.byName[name], a.byPlace[place] = place, name
	if a.file != nil {
		if _, err := fmt.Fprintf(a.file, "%s %s\n", name, a.at(a.range4, place)); err != nil {
			return 0, fmt.Errorf("virtual addresses: %w", err)
		}
	}
	return place, nil
}

// at is the place's address in a range.
func (a *Addresses) at(r netip.Prefix, place uint32) netip.Addr {
	b := r.Addr().AsSlice()
	for i := len(b) - 1; place > 0; i-- {
		b[i] |= byte(place)
		place >>= 8
	}
	ip, _ := netip.AddrFromSlice(b)
	return ip
}

// placeOf reads the place from an address of either range.
func (a *Addresses) placeOf(ip netip.Addr) uint32 {
	b := ip.AsSlice()
	b = b[len(b)-4:]
	return (uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])) & (a.size - 1)
}
