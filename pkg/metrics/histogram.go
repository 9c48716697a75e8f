// SPDX-License-Identifier: Apache-2.0

package metrics

import "math/bits"

// Buckets is the number of buckets of a Histogram.
const Buckets = 4 * 42

// Histogram counts values in log-linear buckets, four to each power of two, so
// a quantile is off by at most an eighth. The zero value is empty. It is owned
// by one goroutine; readers merge copies.
type Histogram struct {
	Counts [Buckets]uint64
	Sum    uint64
	N      uint64
}

// Record counts one value (by convention microseconds, or bytes).
func (h *Histogram) Record(v uint64) {
	h.Counts[bucket(v)]++
	h.Sum += v
	h.N++
}

func bucket(v uint64) int {
	if v < 4 {
		return int(v)
	}
	e := bits.Len64(v) - 3 // v>>e is in 4..7
	i := (e+1)*4 + int(v>>e) - 4
	if i >= Buckets {
		return Buckets - 1
	}
	return i
}

// Upper is the largest value that bucket i counts.
func Upper(i int) uint64 {
	if i < 4 {
		return uint64(i)
	}
	e := i/4 - 1
	return (uint64(i%4)+5)<<e - 1
}

// Merge adds the counts of o.
func (h *Histogram) Merge(o *Histogram) {
	for i := range h.Counts {
		h.Counts[i] += o.Counts[i]
	}
	h.Sum += o.Sum
	h.N += o.N
}

// Quantile returns an upper bound of the q-quantile, 0 where nothing was counted.
func (h *Histogram) Quantile(q float64) uint64 {
	if h.N == 0 {
		return 0
	}
	rank := uint64(q * float64(h.N))
	if rank >= h.N {
		rank = h.N - 1
	}
	var seen uint64
	for i, n := range h.Counts {
		seen += n
		if seen > rank {
			return Upper(i)
		}
	}
	return Upper(Buckets - 1)
}

// Below is how many values were at most v. Values of the bucket that v lies in
// count in proportion, as if they were spread evenly over it.
func (h *Histogram) Below(v float64) uint64 {
	var n uint64
	lower := -1.0 // largest value below the bucket
	for i, c := range h.Counts {
		upper := float64(Upper(i))
		if upper > v {
			if v > lower {
				n += uint64(float64(c) * (v - lower) / (upper - lower))
			}
			return n
		}
		n += c
		lower = upper
	}
	return n
}
