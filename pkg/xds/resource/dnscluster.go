// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"net/netip"
	"time"
)

// DNSFamily says of which families the addresses of a name are wanted.
type DNSFamily uint8

// The families, as DnsLookupFamily means them.
const (
	DNSAuto        DNSFamily = iota // IPv6, and IPv4 where a name has none
	DNSV4Only                       // IPv4
	DNSV6Only                       // IPv6
	DNSV4Preferred                  // IPv4, and IPv6 where a name has none
	DNSAll                          // both
)

// DNSLookup says how the endpoints of a cluster of type StrictDNS or LogicalDNS
// are found.
type DNSLookup struct {
	// Key names the endpoints that are found, in place of an EDS resource: it is
	// another one whenever something else is to be looked up.
	Key string
	// Names are the endpoints as configured: the host of an address is a name, or an
	// IP address that needs no lookup.
	Names *Assignment

	Refresh       time.Duration // from one answer to the next lookup; default 5 s
	Jitter        time.Duration // up to so much is added to Refresh; default none
	FailureBase   time.Duration // first pause after a failure; 0: Refresh, always
	FailureMax    time.Duration // the most that pauses grow to; default ten times FailureBase
	MinRefresh    time.Duration // the least that a TTL is taken for
	RespectTTL    bool          // an answer's TTL is used in place of Refresh
	Family        DNSFamily
	Resolvers     []netip.AddrPort // none: the host's
	TCP           bool             // queries go by TCP only
	NoSearch      bool             // names are complete as they are
	QueryTimeout  time.Duration    // of one query; default 5 s
	QueryTries    int              // queries of one family, over all resolvers; default 4
	StartsWithout bool             // the cluster does not wait for a first answer
}

// IsDNS reports whether the cluster's endpoints are found by names.
func (c *Cluster) IsDNS() bool { return c.Type == StrictDNS || c.Type == LogicalDNS }

// Discovered is the name of the endpoints that come to the cluster from elsewhere:
// of an EDS resource, or of what is looked up; "" where the cluster has its own.
func (c *Cluster) Discovered() string {
	switch {
	case c.IsDNS():
		return c.DNS.Key
	case c.Type == EDS:
		return c.EDSName
	}
	return ""
}

// Configured are the endpoints that the cluster's own configuration lists, those
// of DNS clusters with names in place of addresses; nil for EDS.
func (c *Cluster) Configured() *Assignment {
	if c.IsDNS() {
		return c.DNS.Names
	}
	return c.Static
}
