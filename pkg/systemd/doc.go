// SPDX-License-Identifier: Apache-2.0

// Package systemd is a service's side of systemd's protocols: sockets that it has bound
// (sd_listen_fds(3)), and news for it (sd_notify(3)) with the watchdog. All come by
// environment variables; without them nothing happens, so that a process need not ask
// whether systemd is there. It holds no state and starts nothing.
package systemd
