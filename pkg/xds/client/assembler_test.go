// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"
	"time"
)

func TestASourceWithoutALimitIsWaitedForForEver(t *testing.T) {
	for _, tt := range []struct {
		limit, passed time.Duration
		started       bool
	}{
		{15 * time.Second, 14 * time.Second, false},
		{15 * time.Second, 16 * time.Second, true},
		{0, 365 * 24 * time.Hour, false},
	} {
		c, _ := bare(t)
		c.cfg.Bootstrap.CDS.InitialFetchTimeout = tt.limit
		now := time.Now()
		c.asm.round(now, c)
		c.asm.round(now.Add(tt.passed), c)
		if c.asm.started != tt.started {
			t.Errorf("limit %v, %v without an answer: started is %t, want %t", tt.limit, tt.passed, c.asm.started, tt.started)
		}
	}
}
