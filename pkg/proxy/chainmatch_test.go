// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func prefixList(texts ...string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// tree compiles chains that are named by their place: a, b, c, …
func tree(matches ...resource.FilterChainMatch) *listenerConfig {
	c := &listenerConfig{tree: chainTree{}, deflt: &chain{name: "default"}}
	for i, m := range matches {
		c.tree.add(&chain{name: string(rune('a' + i)), match: m})
	}
	return c
}

func alpn(names ...string) (list []byte) {
	for _, n := range names {
		list = append(append(list, byte(len(n))), n...)
	}
	return list
}

func TestChainsAreChosenByEnvoysPrecedence(t *testing.T) {
	type match = resource.FilterChainMatch
	ap := netip.MustParseAddrPort
	near, far := ap("127.0.0.1:5000"), ap("192.0.2.7:5000")
	local := ap("10.0.0.1:80")
	for _, c := range []struct {
		name    string
		matches []match
		traits  traits
		want    string
	}{
		{"an empty match takes all", []match{{}}, traits{}, "a"},
		{"none is for the default", []match{{DestinationPort: 81}}, traits{}, "default"},
		{"a port before no port", []match{{}, {DestinationPort: 80}}, traits{}, "b"},
		{"a port whose prefixes do not match has no way back", []match{{}, {DestinationPort: 80, PrefixRanges: prefixList("10.1.0.0/16")}}, traits{}, "default"},
		{"the longest prefix", []match{{PrefixRanges: prefixList("10.0.0.0/8")}, {PrefixRanges: prefixList("10.0.0.0/24", "1.0.0.0/8")}, {}}, traits{}, "b"},
		{"all else of the prefixes", []match{{PrefixRanges: prefixList("10.2.0.0/16")}, {}}, traits{}, "b"},
		{"the whole name", []match{{ServerNames: []string{"*.example"}}, {ServerNames: []string{"a.example"}}}, traits{name: []byte("a.example")}, "b"},
		{"the longest wildcard", []match{{ServerNames: []string{"*.example"}}, {ServerNames: []string{"*.b.example"}}}, traits{name: []byte("a.b.example")}, "b"},
		{"a wildcard over several labels", []match{{ServerNames: []string{"*.example"}}, {}}, traits{name: []byte("a.b.c.example")}, "a"},
		{"a wildcard is not for the bare name", []match{{ServerNames: []string{"*.example"}}, {}}, traits{name: []byte("example")}, "b"},
		{"a dot at the end is another name", []match{{ServerNames: []string{"a.example"}}, {}}, traits{name: []byte("a.example.")}, "b"},
		{"no name", []match{{ServerNames: []string{"*.example"}}}, traits{}, "default"},
		{"a prefix before a name", []match{{ServerNames: []string{"a.example"}}, {PrefixRanges: prefixList("10.0.0.1/32")}}, traits{name: []byte("a.example")}, "b"},
		{"a name whose transport does not match has no way back", []match{{ServerNames: []string{"a.example"}, TransportProtocol: "raw_buffer"}, {}}, traits{name: []byte("a.example"), transport: "tls"}, "default"},
		{"a transport before none", []match{{}, {TransportProtocol: "tls"}}, traits{transport: "tls"}, "b"},
		{"another transport", []match{{}, {TransportProtocol: "tls"}}, traits{transport: "raw_buffer"}, "a"},
		{"the client's first protocol that a chain has", []match{{ApplicationProtocols: []string{"http/1.1"}}, {ApplicationProtocols: []string{"h2"}}}, traits{alpn: alpn("x", "h2", "http/1.1")}, "b"},
		{"no protocol that a chain has", []match{{ApplicationProtocols: []string{"h2"}}, {}}, traits{alpn: alpn("x")}, "b"},
		{"the peer itself", []match{{DirectSourcePrefixes: prefixList("172.16.0.0/12")}, {}}, traits{remote: far, direct: ap("172.16.0.1:1")}, "a"},
		{"the peer itself is not who it speaks for", []match{{DirectSourcePrefixes: prefixList("192.0.2.0/24")}, {}}, traits{remote: far, direct: ap("172.16.0.1:1")}, "b"},
		{"from this host", []match{{SourceType: resource.SourceExternal}, {SourceType: resource.SourceSameIPOrLoopback}}, traits{}, "b"},
		{"from our own address", []match{{SourceType: resource.SourceExternal}, {SourceType: resource.SourceSameIPOrLoopback}}, traits{remote: ap("10.0.0.1:7")}, "b"},
		{"from elsewhere", []match{{SourceType: resource.SourceExternal}, {SourceType: resource.SourceSameIPOrLoopback}}, traits{remote: far}, "a"},
		{"a source type without its match has no way back", []match{{}, {SourceType: resource.SourceExternal, SourcePorts: []uint16{1}}}, traits{remote: far}, "default"},
		{"the source type that nobody asks for", []match{{}, {SourceType: resource.SourceExternal}}, traits{}, "a"},
		{"the longest source prefix", []match{{SourcePrefixes: prefixList("192.0.2.0/24")}, {SourcePrefixes: prefixList("192.0.2.7/32")}}, traits{remote: far}, "b"},
		{"a source port before none", []match{{}, {SourcePorts: []uint16{4, 5000}}}, traits{}, "b"},
		{"another source port", []match{{}, {SourcePorts: []uint16{4}}}, traits{}, "a"},
		{"an IPv4 address inside of IPv6", []match{{SourcePrefixes: prefixList("192.0.2.0/24")}}, traits{remote: ap("[::ffff:192.0.2.1]:1")}, "a"},
		{"IPv6", []match{{SourcePrefixes: prefixList("2001:db8::/32")}, {}}, traits{remote: ap("[2001:db8::1]:1")}, "a"},
	} {
		if !c.traits.local.IsValid() {
			c.traits.local = local
		}
		if !c.traits.remote.IsValid() {
			c.traits.remote = near
		}
		if !c.traits.direct.IsValid() {
			c.traits.direct = c.traits.remote
		}
		if got := tree(c.matches...).match(&c.traits); got.name != c.want {
			t.Errorf("%s: %s, want %s", c.name, got.name, c.want)
		}
	}
	unix := traits{}
	if got := tree(resource.FilterChainMatch{SourceType: resource.SourceSameIPOrLoopback}).match(&unix); got.name != "a" {
		t.Errorf("a Unix socket: %s", got.name)
	}
}

func TestChoosingAChainAllocatesNothing(t *testing.T) {
	type match = resource.FilterChainMatch
	c := tree(match{PrefixRanges: prefixList("10.0.0.0/8"), ServerNames: []string{"*.example"}, TransportProtocol: "tls", ApplicationProtocols: []string{"h2"}, SourceType: resource.SourceExternal, SourcePorts: []uint16{5000}}, match{})
	tr := traits{local: netip.MustParseAddrPort("10.0.0.1:80"), remote: netip.MustParseAddrPort("192.0.2.7:5000"), name: []byte("a.b.example"), transport: "tls", alpn: alpn("x", "h2")}
	tr.direct = tr.remote
	if got := c.match(&tr); got.name != "a" {
		t.Fatal(got.name)
	}
	if n := testing.AllocsPerRun(100, func() { c.match(&tr) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
