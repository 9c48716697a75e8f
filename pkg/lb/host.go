// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Host is one endpoint of one cluster, shared by all workers. It stays the same
// object as long as its address and host name are in the cluster.
//
// The first 64 bytes are read by every pick and hardly ever written; the last 64
// are written by every request. The size of 128 bytes keeps the allocator's
// placement on cache lines, so that the one does not disturb the other. What a pick
// compares hosts by is in one line, the second. A mesh has hosts by the ten
// thousand: what a request does not need is not here but in the endpoint that the
// configuration holds anyway.
type Host struct {
	// Set once.
	addr netip.Addr // see Addr
	port uint16

	// Atomic bits: ejected, failed, gone, named, calls, and those of hostcheck.go.
	flags atomic.Uint32

	// Replaced by Update; address and host name stay.
	spec     atomic.Pointer[resource.Endpoint]
	locality atomic.Pointer[resource.Locality]

	consecutive atomic.Uint64 // see Consecutive
	// Load reports; nil in clusters that do not go by them.
	report atomic.Pointer[reported]

	// Written per request by all workers: exact.
	Active atomic.Int32 // requests in flight
	Conns  atomic.Int32 // connections open
	rtt    atomicRTT    // of clusters with peak_ewma
	Stats  HostStats
}

// HostStats are a host's counters under Envoy's names; they only grow. They share
// a cache line with Active, which a request's end has to write anyway.
type HostStats struct {
	RqTotal       atomic.Uint64
	RqSuccess     atomic.Uint64
	RqError       atomic.Uint64
	RqTimeout     atomic.Uint64
	CxTotal       atomic.Uint64
	CxConnectFail atomic.Uint64
}

const (
	flagEjected uint32 = 1 << iota
	flagFailed
	flagGone
	flagNamed // has a host name
	flagCalls // of HTTP/2 it takes calls of gRPC only
	flagMoved // its address is no longer Addr
)

func newHost(e *resource.Endpoint, l *resource.Locality) *Host {
	h := new(Host)
	if ip, err := netip.ParseAddr(e.Address.Host); err == nil && e.Address.Path == "" {
		h.addr, h.port = ip.Unmap(), e.Address.Port
	}
	h.setFlag(flagNamed, e.Hostname != "")
	h.configure(e, l)
	return h
}

func (h *Host) configure(e *resource.Endpoint, l *resource.Locality) {
	h.spec.Store(e)
	h.locality.Store(l)
	if e.HTTP2Calls != h.HTTP2Calls() {
		h.setFlag(flagCalls, e.HTTP2Calls)
	}
}

// Addr is the endpoint's address, the first one of a logical host (see Dial); invalid
// for a Unix socket.
func (h *Host) Addr() netip.AddrPort { return netip.AddrPortFrom(h.addr, h.port) }

// Text is what the host is known by, "10.0.0.1:80", "[::1]:80" or the path of a
// Unix socket; it is also what hash policies hash. It is made anew by each call.
func (h *Host) Text() string {
	a := &h.spec.Load().Address
	if a.Path != "" {
		return a.Path
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// String is the host's text.
func (h *Host) String() string { return h.Text() }

// Path is the Unix socket, "@name" is abstract; "" for IP.
func (h *Host) Path() string {
	if h.addr.IsValid() {
		return ""
	}
	return h.spec.Load().Address.Path
}

// Hostname is the endpoint's host name, "" for none.
func (h *Host) Hostname() string {
	if h.flags.Load()&flagNamed == 0 {
		return ""
	}
	return h.spec.Load().Hostname
}

// Weight is the endpoint's weight, at least 1.
func (h *Host) Weight() uint32 { return max(h.spec.Load().Weight, 1) }

// Metadata is the endpoint's metadata; nobody writes to it.
func (h *Host) Metadata() resource.Metadata { return h.spec.Load().Metadata }

// HTTP2Calls reports whether only calls of gRPC go to the endpoint by HTTP/2 where
// the cluster follows the protocol of downstream.
func (h *Host) HTTP2Calls() bool { return h.flags.Load()&flagCalls != 0 }

// Locality is where the endpoint is; nobody writes to it.
func (h *Host) Locality() *resource.Locality { return h.locality.Load() }

// Canary reports whether the endpoint is marked as a canary.
func (h *Host) Canary() bool { return h.spec.Load().Canary }

// EDSHealth is the health that EDS told.
func (h *Host) EDSHealth() resource.HealthStatus { return h.spec.Load().Health }

// Healthy reports whether the host may be picked outside of panic: usable by EDS,
// not ejected, not failed in active checks. A degraded host is not healthy.
func (h *Host) Healthy() bool { return h.health() == stateHealthy }

// Degraded reports whether the host is to be used only when the healthy ones do
// not suffice.
func (h *Host) Degraded() bool { return h.health() == stateDegraded }

type healthState uint8

const (
	stateHealthy healthState = iota
	stateDegraded
	stateUnhealthy
	stateExcluded // by healthIn only
)

func (h *Host) health() healthState {
	if h.flags.Load()&(flagEjected|flagFailed) != 0 {
		return stateUnhealthy
	}
	switch s := h.spec.Load().Health; {
	case s == resource.Degraded, s.Usable() && h.DegradedByCheck():
		return stateDegraded
	case s.Usable():
		return stateHealthy
	}
	return stateUnhealthy
}

// Ejected reports whether outlier detection has taken the host out.
func (h *Host) Ejected() bool { return h.flags.Load()&flagEjected != 0 }

// SetEjected marks the host for outlier detection; Cluster.HealthChanged makes
// picks see it.
func (h *Host) SetEjected(on bool) { h.setFlag(flagEjected, on) }

// Failed reports whether active health checks have failed the host.
func (h *Host) Failed() bool { return h.flags.Load()&flagFailed != 0 }

// SetFailed marks the host for active health checks; Cluster.HealthChanged makes
// picks see it.
func (h *Host) SetFailed(on bool) { h.setFlag(flagFailed, on) }

// Gone reports whether an update has removed the host from its cluster: pools
// retire its connections, requests in flight finish. It never comes back; the
// same address gets a new Host.
func (h *Host) Gone() bool { return h.flags.Load()&flagGone != 0 }

func (h *Host) setFlag(f uint32, on bool) {
	if on {
		h.flags.Or(f)
	} else {
		h.flags.And(^f)
	}
}

// Consecutive is room for the failures in a row that outlier detection counts,
// packed by its own rules; it lies on the host so that all workers count
// together. Zero means none.
func (h *Host) Consecutive() *atomic.Uint64 { return &h.consecutive }
