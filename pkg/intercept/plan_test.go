// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func prefixes(t *testing.T, entries ...string) []netip.Prefix {
	t.Helper()
	ps, err := ParsePrefixes(entries)
	if err != nil {
		t.Fatal(err)
	}
	return ps
}

func TestPlansAreAsRecorded(t *testing.T) {
	sidecar := []Range{{65532, 65532}}
	for name, c := range map[string]Config{
		"all": {
			IPv4: true, IPv6: true, Outbound: 15001, Inbound: 15006, DNS: 15053, OwnPorts: []uint16{15000},
			SidecarUIDs: sidecar, SidecarGIDs: sidecar, ExcludeMark: 0x539,
			ExcludeUIDs: []Range{{1, 3}}, ExcludeGIDs: []Range{{9, 9}},
			ExcludeOutboundPorts: []Range{{22, 22}, {8000, 8010}}, ExcludeInboundPorts: []Range{{22, 22}},
			ExcludeOutboundNetworks: prefixes(t, "10.0.0.0/8", "192.0.2.1", "fd00::/8"),
			ExcludeInboundNetworks:  prefixes(t, "10.1.0.0/16", "fd01::/16"),
		},
		"outbound": {IPv4: true, IPv6: true, Outbound: 15001, SidecarUIDs: sidecar},
		"only": {
			IPv4: true, IPv6: true, Outbound: 15001, Inbound: 15006, SidecarUIDs: sidecar,
			OutboundPorts: []Range{{80, 80}, {443, 443}}, InboundPorts: []Range{{8080, 8081}},
			OutboundNetworks: prefixes(t, "10.0.0.0/8", "fd00::/8"),
		},
		"ipv4-tproxy": {IPv4: true, Inbound: 15006, InboundMode: TProxy, InboundPorts: []Range{{8080, 8080}}},
		"dns":         {IPv6: true, DNS: 15053, SidecarGIDs: sidecar},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, tool := range []Tool{NFT, IPTables} {
			path := filepath.Join("testdata", name+"."+string(tool))
			got := c.Install(tool).Script()
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", path, d)
			}
		}
	}
}

func TestEveryFaultOfAConfigurationIsTold(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    Config
		want string
	}{
		{"nothing", Config{IPv4: true}, "nothing is asked for: neither outbound nor inbound connections, nor DNS"},
		{"no family", Config{Inbound: 15006}, "neither IPv4 nor IPv6 is asked for"},
		{
			"a sidecar like any other process", Config{IPv4: true, Outbound: 15001},
			"the sidecar cannot be told from the application: its connections would come back to it for ever; name the user or group it runs as, or a mark",
		},
		{
			"everybody is the sidecar", Config{IPv4: true, Outbound: 1, SidecarUIDs: []Range{{0, 1<<32 - 2}}},
			"every user is the sidecar: nothing would be intercepted",
		},
		{
			"one port for two", Config{IPv4: true, Outbound: 1, Inbound: 1, DNS: 1, ExcludeMark: 1},
			"outbound and inbound have the same port 1\noutbound and DNS have the same port 1\ninbound and DNS have the same port 1",
		},
	} {
		got := ""
		if err := tc.c.Validate(); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
