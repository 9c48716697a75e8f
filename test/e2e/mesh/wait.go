// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"testing"
	"time"
)

// patience is the least that waiting has before a test ends: a limit ends what hangs,
// and a busy machine is no hang. What has to be quick says so of the time it took.
const patience = 30 * time.Second

// What is waited for by polling is measured to a twentieth of the time that it takes,
// between these: who asks two hundred times a second for a minute keeps a processor from
// the tests beside it.
const (
	pollEvery  = 5 * time.Millisecond
	pollSeldom = 50 * time.Millisecond
)

// errFinal ends a poll before its limit.
var errFinal = errors.New("no use waiting")

// Poll calls check until it gives nil or the limit is over, and returns its last
// error.
func Poll(limit time.Duration, check func() error) error {
	began := time.Now()
	for {
		err := check()
		took := time.Since(began)
		if err == nil || errors.Is(err, errFinal) || took > limit {
			return err
		}
		<-time.After(min(max(took/20, pollEvery), pollSeldom))
	}
}

// Await polls until check gives nil and returns how long that took. The test
// ends if it takes longer than the limit, of which patience is the least.
func Await(t testing.TB, limit time.Duration, what string, check func() error) time.Duration {
	t.Helper()
	began, limit := time.Now(), max(limit, patience)
	if err := Poll(limit, check); err != nil {
		t.Fatalf("waited %v for: %s: %v", limit, what, err)
	}
	return time.Since(began)
}

// Pass lets time pass: for measures over a time, never to wait for an event.
func Pass(d time.Duration) { <-time.After(d) }
