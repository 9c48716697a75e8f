// SPDX-License-Identifier: Apache-2.0

// Package admin is the admin port: Envoy's paths and formats over net/http, on
// goroutines of its own, for people, scrapers and scripts on this host.
//
// It shows what others know and asks them to act; it knows nothing itself but
// whether health checks were told to fail, and from where counters count since
// the last /reset_counters. What it shows comes in by Config, behind small
// interfaces and functions, because it never imports the proxy, the xDS client
// or the agent. Nothing here runs on a loop: numbers are asked for with a
// deadline, and a proxy that does not answer makes /stats fail, not hang.
//
// Who may ask: programs on this host. A browser may not (a foreign Host, any
// Origin and cross-site fetches are refused), and on an address that others can
// reach a bearer token is required, see guard.go.
//
// Source of paths and formats: Envoy, "Administration interface", and the answers
// of Envoy 1.40. Where they differ this package follows the answers.
package admin
