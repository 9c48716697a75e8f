// SPDX-License-Identifier: Apache-2.0

// Package ratelimit is token buckets that all loops of a process take from, exactly and
// without a lock, and tables of them by key that are bounded.
//
// What a request or a connection is charged to, and what becomes of one that finds no
// token, belongs to its users: pkg/filter/localratelimit and pkg/proxy.
package ratelimit
