// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Hash is the hash that request keys are made with (xxHash64, seed 0), so that a
// fleet that mixes proxies sends a key to the same host.
func Hash(s string) uint64 { return xxhash.Sum64String(s) }

// HashBytes is Hash of bytes.
func HashBytes(b []byte) uint64 { return xxhash.Sum64(b) }

// hashed picks by the table of a ring or of maglev; requests without a hash go to
// a random place of it.
type hashed struct {
	jumps jumps // of bounded tables
}

func newHashed(*resource.LoadBalancing, uint64) Picker { return new(hashed) }

// Pick implements Picker.
func (p *hashed) Pick(v *View, r *Request) *Host {
	if s := v.plain(r); s != nil {
		return s.Hosts[p.next(s, v.first, r, 0)]
	}
	return pick(p, v, r, true)
}

func (p *hashed) next(s *Set, _ int, r *Request, attempt int) int {
	key := r.key(true)
	if s.table == nil { // the view is still of another policy
		return below(uint32(mix(key+uint64(attempt))), len(s.Hosts))
	}
	if b, ok := s.table.(*bounded); ok {
		return p.jumps.next(b, s.Hosts, key, b.find(key, attempt), r.Active)
	}
	return s.table.find(key, attempt)
}

// hashKey is the text by which a host has its places in a table.
func hashKey(h *Host, cfg *resource.LoadBalancing) string {
	if k := metadataKey(h); k != "" {
		return k
	}
	if name := h.Hostname(); cfg.UseHostname && name != "" {
		return name
	}
	return h.Text()
}

func metadataKey(h *Host) string { return h.Metadata()["envoy.lb"]["hash_key"] }

// normalize scales shares to a sum of 1. Tables are built with these numbers and
// not with the weights, because roundings decide about a few places, and Envoy's
// tables are to be the same.
func normalize(shares []float64) []float64 {
	total := 0.0
	for _, w := range shares {
		total += w
	}
	out := make([]float64, len(shares))
	for i, w := range shares {
		out[i] = w / total
	}
	return out
}

// seededHash is xxHash64 with a seed.
func seededHash(s string, seed uint64) uint64 {
	d := xxhash.NewWithSeed(seed)
	_, _ = d.WriteString(s) // cannot fail
	return d.Sum64()
}

// murmur2 is MurmurHash64A with the seed that MURMUR_HASH_2 of the xDS API has.
func murmur2(b []byte) uint64 {
	const (
		seed = 0xc70f6907
		m    = 0xc6a4a7935bd1e995
	)
	h := seed ^ uint64(len(b))*m
	for ; len(b) >= 8; b = b[8:] {
		k := binary.LittleEndian.Uint64(b) * m
		k ^= k >> 47
		h = (h ^ k*m) * m
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		h = (h ^ binary.LittleEndian.Uint64(tail[:])) * m
	}
	h = (h ^ h>>47) * m
	return h ^ h>>47
}
