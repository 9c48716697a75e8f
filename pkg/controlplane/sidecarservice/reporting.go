// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How many events a sidecar may report, and a caller under whatever names of nodes: one
// that floods must not push out those of the others, for which there are 2 048 places.
const (
	eventBurst      = 1024
	eventPerSecond  = 20
	callerBurst     = 1536
	callerPerSecond = 60
)

// reporting is what callers and their nodes may report. The zero value is ready.
type reporting struct {
	mu sync.Mutex
	// Guarded by mu. Nodes are those of a caller: nobody uses up what another has by
	// taking its name.
	callers, nodes buckets
}

// grant takes up to n from what the caller may report as the node, and returns how
// many it got.
func (r *reporting) grant(now time.Time, c Caller, node string, n int) int {
	if n == 0 {
		return 0
	}
	account := c.account()
	r.mu.Lock()
	defer r.mu.Unlock()
	caller := r.callers.of(now, account, callerBurst, callerPerSecond)
	if caller.tokens < 1 {
		return 0 // no bucket for a name of a node that may be invented
	}
	of := r.nodes.of(now, account+"\x00"+node, eventBurst, eventPerSecond)
	n = min(n, int(caller.tokens), int(of.tokens))
	caller.tokens -= float64(n)
	of.tokens -= float64(n)
	return n
}

// reportsAs refuses a certificate's owner who reports under a node id that is not
// SERVICE~INSTANCE of its own service: people read there who says something. That an id
// with a service is the caller's is up to allowed.
func reportsAs(ctx context.Context, op, node string) error {
	c := CallerOf(ctx)
	if c.Means == ByCertificate && !strings.HasPrefix(node, c.Service+"~") {
		return status.Errorf(codes.PermissionDenied, "%s: sender.node %q: %s, want %s~INSTANCE", op, node, c.who(), c.Service)
	}
	return nil
}
