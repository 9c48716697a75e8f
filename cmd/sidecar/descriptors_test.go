// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"syscall"
	"testing"
)

func TestTrafficGetsOnlyItsShareOfTheDescriptors(t *testing.T) {
	for _, c := range []struct {
		limit               uint64
		workers             int
		accepting, dialling int
	}{
		{256, 1, 96, 96},
		{1024, 2, 472, 472},
		{64, 8, 16, 16}, // never less than half for traffic
		{1 << 20, 4, (1<<20 - 112) / 2, (1<<20 - 112) / 2},
		{math.MaxUint64, 1, (1<<30 - 64) / 2, (1<<30 - 64) / 2},
	} {
		if a, d := divideDescriptors(c.limit, c.workers); a != c.accepting || d != c.dialling {
			t.Errorf("of %d with %d workers: %d and %d, want %d and %d", c.limit, c.workers, a, d, c.accepting, c.dialling)
		}
	}
}

func TestTheSoftLimitOnOpenFilesIsRaisedAtTheStart(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < limit.Max-1 {
		t.Errorf("soft limit %d, hard limit %d", limit.Cur, limit.Max)
	}
	a, d, err := connectionLimits(1)
	if wa, wd := divideDescriptors(limit.Cur, 1); err != nil || a != wa || d != wd {
		t.Errorf("limits %d and %d, want %d and %d: %v", a, d, wa, wd, err)
	}
}
