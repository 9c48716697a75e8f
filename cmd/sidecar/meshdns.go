// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/outrigger-mesh/outrigger/pkg/dns"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// resolvConf is where the host says who resolves other names.
const resolvConf = "/etc/resolv.conf"

// meshNames are the names that the outbound routes know, as dns.Names.
type meshNames struct {
	known atomic.Pointer[map[string]struct{}]
}

// Has implements dns.Names.
func (m *meshNames) Has(name string) bool {
	known := m.known.Load()
	if known == nil {
		return false
	}
	_, ok := (*known)[name]
	return ok
}

// update takes the names of a snapshot.
func (m *meshNames) update(s *resource.Snapshot) {
	known := map[string]struct{}{}
	for _, l := range s.Listeners {
		if l.Direction == resource.Inbound {
			continue
		}
		chains := l.FilterChains
		if l.DefaultFilterChain != nil {
			chains = append(slices.Clone(chains), l.DefaultFilterChain)
		}
		for _, fc := range chains {
			for _, name := range fc.DestinationNames {
				known[name] = struct{}{}
			}
			if fc.HTTP == nil {
				continue
			}
			rc := fc.HTTP.Routes
			if rc == nil {
				rc = s.Routes[fc.HTTP.RouteConfigName]
			}
			if rc == nil {
				continue
			}
			for _, vh := range rc.VirtualHosts {
				for _, d := range vh.Domains {
					if name := hostName(d); name != "" {
						known[name] = struct{}{}
					}
				}
			}
		}
	}
	m.known.Store(&known)
}

// hostName is the name in a virtual host's domain, empty where it is none that a
// client would resolve: a pattern, an address, or this host.
func hostName(domain string) string {
	name := strings.ToLower(domain)
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.TrimSuffix(name, ".")
	if strings.Contains(name, "*") || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return ""
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return name
}

// startDNS binds what --dns asks for; without it there is no server.
func (d *plane) startDNS(ctx context.Context) error {
	o := &d.env.Options
	if o.DNS == "" {
		return nil
	}
	at, range4, err := o.dnsConfig()
	if err != nil {
		return err
	}
	resolvers, err := dns.Resolvers(resolvConf)
	if err != nil {
		return fmt.Errorf("--dns: %w", err)
	}
	path := ""
	if d.env.DataDir != "" {
		path = filepath.Join(d.env.DataDir, "dns-addresses")
	}
	addresses, err := dns.OpenAddresses(range4, dns.DefaultRange6, path)
	if err != nil {
		return fmt.Errorf("--dns: %w", err)
	}
	d.places.of = addresses.Of
	streams, packets, err := d.env.Heritage.dns()
	if err == nil {
		d.dns, err = dns.Listen(ctx, dns.Config{
			Address: at, Names: &d.names, Addresses: addresses, Resolvers: resolvers, Streams: streams, Packets: packets,
		})
	}
	if err != nil {
		_ = addresses.Close()
		return fmt.Errorf("--dns: %w", err)
	}
	d.run(ctx, "DNS", func(ctx context.Context) error {
		defer addresses.Close()
		select {
		case <-d.taken:
			d.dns.Serve(ctx)
		case <-ctx.Done():
			d.dns.Close()
		}
		<-ctx.Done() // a successor may have its sockets, while connections drain
		return nil
	})
	return nil
}

// dnsConfig reads --dns and --dns-range; both are empty where there is no DNS.
func (o *Options) dnsConfig() (at netip.AddrPort, range4 netip.Prefix, err error) {
	if at, err = netip.ParseAddrPort(o.DNS); err != nil || !at.Addr().IsLoopback() {
		return at, range4, fmt.Errorf("--dns: %q: want a loopback address and port, such as %s", o.DNS, "127.0.0.1:15053")
	}
	range4 = dns.DefaultRange4
	if o.DNSRange != "" {
		if range4, err = netip.ParsePrefix(o.DNSRange); err != nil {
			return at, range4, fmt.Errorf("--dns-range: %q: want a network such as %s", o.DNSRange, dns.DefaultRange4)
		}
	}
	if _, err = dns.OpenAddresses(range4, dns.DefaultRange6, ""); err != nil {
		return at, range4, fmt.Errorf("--dns-range: %w", err)
	}
	return at, range4, nil
}

// dnsSamples are the counts of DNS.
func (d *plane) dnsSamples() []metrics.Sample {
	if d.dns == nil {
		return nil
	}
	c := d.dns.Counts()
	var out []metrics.Sample
	for _, s := range []struct {
		name, help string
		value      *atomic.Uint64
	}{
		{"queries", "queries that came", &c.Queries},
		{"mesh", "queries answered with virtual addresses", &c.Mesh},
		{"forwarded", "queries that a resolver answered", &c.Forwarded},
		{"failed", "queries that no resolver answered", &c.Failed},
		{"refused", "queries beyond what may be under way", &c.Refused},
		{"malformed", "messages that are no proper query", &c.Malformed},
		{"spoofed", "answers with a foreign id or question, dropped", &c.Spoofed},
	} {
		out = append(out, metrics.Sample{Name: "outrigger.dns_" + s.name, Help: s.help, Kind: metrics.KindCounter, Value: s.value.Load()})
	}
	return out
}
