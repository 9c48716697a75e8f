// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// Fallback is what takes the place of an answer that an upstream does not give: the
// first of its parts that can.
type Fallback struct {
	// Cluster is another one that the request goes to, "": none. Its own fallback is not
	// asked.
	Cluster string
	Cached  *CachedFallback // nil: no answer is kept
	Static  *DirectResponse // nil: none
}

// CachedFallback lets the last good answer stand for one that fails, as far as RFC 9111
// allows a shared cache to keep it and to use it while disconnected.
type CachedFallback struct {
	MaxAge  time.Duration // the oldest that is used; default 10 min
	MaxBody int           // the longest body that is kept, in bytes; default 64 KiB
}
