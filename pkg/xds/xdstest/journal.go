// SPDX-License-Identifier: Apache-2.0

package xdstest

import (
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Exchange is a request or response that has been seen.
type Exchange struct {
	Stream  int64
	Type    string
	Version string   // of responses; of requests: the version accepted
	Nonce   string   // "" in the first request
	Names   []string // asked for; delta: subscribed to
	Gone    []string // delta: unsubscribed from
	Initial map[string]string
	Node    *corev3.Node
	Nack    string
	Request bool
	Delta   bool
}

// maxSeen bounds the record.
const maxSeen = 100_000

// journal is the record of a server.
type journal struct {
	mu     sync.Mutex
	seen   []Exchange
	change chan struct{} // closed and replaced at every exchange
}

// Seen returns what has passed so far, in order.
func (j *journal) Seen() []Exchange {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Exchange(nil), j.seen...)
}

// Wait waits until an exchange satisfies the condition and returns it. what says
// what is waited for.
func (j *journal) Wait(t testing.TB, what string, ok func(Exchange) bool) Exchange {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for from := 0; ; {
		j.mu.Lock()
		list, change := j.seen[from:], j.change
		j.mu.Unlock()
		for _, e := range list {
			if ok(e) {
				return e
			}
		}
		from += len(list)
		select {
		case <-change:
		case <-deadline.C:
			t.Fatalf("no %s after 20s; seen %d exchanges", what, from)
		}
	}
}

func (j *journal) note(e Exchange) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.seen) < maxSeen {
		j.seen = append(j.seen, e)
	}
	close(j.change)
	j.change = make(chan struct{})
}
