// SPDX-License-Identifier: Apache-2.0

package main

import "slices"

// Spread is a median with the least and the greatest of what it stands for.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// spreadOf takes values in any order; of an even number the median is the mean of
// the middle two.
func spreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := v[len(v)/2]
	if len(v)%2 == 0 {
		mid = (mid + v[len(v)/2-1]) / 2
	}
	return Spread{Median: mid, Min: v[0], Max: v[len(v)-1], N: len(v)}
}

// spreadBy is the spread of one figure of many things.
func spreadBy[T any](of []T, figure func(T) float64) Spread {
	var v []float64
	for _, x := range of {
		v = append(v, figure(x))
	}
	return spreadOf(v)
}

// pairedRatios divides what was measured in the same round. Rounds that one of
// the two lacks are left out.
func pairedRatios(ours, theirs []Sample) []float64 {
	var out []float64
	for _, a := range ours {
		for _, b := range theirs {
			if a.Round == b.Round && b.CPUMicros > 0 {
				out = append(out, a.CPUMicros/b.CPUMicros)
			}
		}
	}
	return out
}
