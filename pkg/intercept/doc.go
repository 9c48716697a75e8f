// SPDX-License-Identifier: Apache-2.0

// Package intercept leads the connections of a host or container through its
// sidecar: it makes the kernel's redirection rules, shows, installs and removes
// them.
//
// Two parts are kept apart. Config.Install and Config.Remove are pure: they turn what is asked
// for into a Plan, the commands with their input, which can be printed and run by
// hand. Apply and Remove check privileges and tools, take the lock of the network
// namespace and run plans.
//
// Every rule lives in the table "outrigger" (nftables) or in chains whose names
// begin with OUTRIGGER (iptables), so that removal is exact: nothing else of the
// host is read, changed or kept.
//
// What does not belong here: the listeners that redirected connections arrive at,
// and how they learn the original destination (SO_ORIGINAL_DST).
//
// Nothing here runs beside traffic; all of it belongs to the goroutine of the caller.
package intercept
