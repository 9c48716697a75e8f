// SPDX-License-Identifier: Apache-2.0

package metrics

import "testing"

func TestEveryValueLiesInItsBucket(t *testing.T) {
	for _, v := range []uint64{0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 100, 1000, 12345, 1 << 20, 1<<30 + 7, 1 << 42} {
		i := bucket(v)
		if v > Upper(i) {
			t.Errorf("%d is above bucket %d, which ends at %d", v, i, Upper(i))
		}
		if i > 0 && v <= Upper(i-1) {
			t.Errorf("%d is in bucket %d but belongs below, to %d", v, i, Upper(i-1))
		}
	}
}

func TestQuantilesAreWithinAnEighth(t *testing.T) {
	var h Histogram
	for v := uint64(1); v <= 100000; v++ {
		h.Record(v)
	}
	for _, q := range []float64{0.5, 0.9, 0.99} {
		want, got := q*100000, float64(h.Quantile(q))
		if got < want || got > want*1.26 {
			t.Errorf("quantile %v: got %v, want about %v", q, got, want)
		}
	}
}
