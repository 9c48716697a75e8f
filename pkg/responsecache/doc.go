// SPDX-License-Identifier: Apache-2.0

// Package responsecache keeps answers to GET that a shared cache may keep (RFC 9111),
// and finds them again. It decides what may be kept and used; when it is asked is for
// the caller, who may want answers that are stale.
//
// A Cache is for all loops of a process, without a lock: entries are immutable and are
// replaced by one atomic store. It is bounded in bytes, those of answers that are still
// coming included. A Draft belongs to one loop.
//
// Not here: requests that are revalidated, ranges, and answers other than 200.
package responsecache
