// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"math/rand/v2"
)

// newTraceID makes a trace id that is not zero in the width asked for.
func newTraceID(id *[16]byte, rnd rand.Source, wide bool) {
	putRandom((*[8]byte)(id[8:]), rnd)
	if wide {
		putRandom((*[8]byte)(id[:8]), rnd)
	}
}

// putRandom writes a random word that is not zero: a zero id means "none".
func putRandom(dst *[8]byte, rnd rand.Source) {
	n := rnd.Uint64()
	for n == 0 {
		n = rnd.Uint64()
	}
	binary.BigEndian.PutUint64(dst[:], n)
}

// TraceIDRatio decides by the trace id as OpenTelemetry's TraceIDRatioBased
// sampler does, bit for bit, so that proxies and applications that sample with
// one fraction pick the same traces.
func TraceIDRatio(id [16]byte, fraction float64) bool {
	if fraction >= 1 {
		return true
	}
	return ratioValue(&id) < ratioThreshold(fraction)
}

// ratioThreshold is the bound of the lower 63 bits for a fraction below 1.
func ratioThreshold(fraction float64) uint64 {
	if fraction <= 0 {
		return 0
	}
	return uint64(fraction * (1 << 63))
}

func ratioValue(id *[16]byte) uint64 { return binary.BigEndian.Uint64(id[8:]) >> 1 }
