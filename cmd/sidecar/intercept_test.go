// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// intercepted runs `sidecar intercept` and returns what it prints.
func intercepted(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := newCommand(parts{})
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(append([]string{"intercept"}, args...))
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestInterceptShowsItsRulesWithoutPrivileges(t *testing.T) {
	out, err := intercepted(t, "--dry-run", "--tool", "nft", "--family", "ipv4", "--sidecar-uid", "1500", "--sidecar-gid", "1500", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var report struct {
		Action, Tool string
		Commands     []struct {
			Argv  []string
			Input string
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if report.Action != "shown" || report.Tool != "nft" || len(report.Commands) != 1 {
		t.Fatalf("%+v", report)
	}
	for _, want := range []string{"skuid { 1500 } return", "redirect to :15001", "redirect to :15006", "15000-15001", "nfproto ipv6 return"} {
		if !strings.Contains(report.Commands[0].Input, want) {
			t.Errorf("the rules have no %q:\n%s", want, report.Commands[0].Input)
		}
	}
}

func TestInterceptNamesTheFlagOfEachFault(t *testing.T) {
	_, err := intercepted(t, "--direction", "up", "--family", "ipx", "--tool", "pf", "--inbound-mode", "magic", "--timeout", "0s",
		"--outbound", "unix:/x", "--inbound", ":0", "--dns", "192.0.2.1:53", "--exclude-outbound-ports", "http",
		"--exclude-outbound-networks", "10.0.0.1/8", "--exclude-uids", "no-such-user-here", "--sidecar-gid", "no-such-group-here")
	if err == nil {
		t.Fatal("no error")
	}
	for _, flag := range []string{
		"direction", "family", "tool", "inbound-mode", "timeout", "outbound", "inbound", "dns",
		"exclude-outbound-ports", "exclude-outbound-networks", "exclude-uids", "sidecar-gid",
	} {
		if !strings.Contains(err.Error(), "--"+flag+": ") {
			t.Errorf("no fault of --%s in:\n%v", flag, err)
		}
	}
	if code := exitCode(err); code != exitConfiguration {
		t.Errorf("exit code %d, want %d", code, exitConfiguration)
	}
}

func TestMeshNamesAreThoseOfOutboundRoutes(t *testing.T) {
	routes := func(domains ...string) *resource.HTTPManager {
		return &resource.HTTPManager{Routes: &resource.RouteConfig{VirtualHosts: []*resource.VirtualHost{{Domains: domains}}}}
	}
	s := &resource.Snapshot{Listeners: map[string]*resource.Listener{
		"in":  {Direction: resource.Inbound, FilterChains: []*resource.FilterChain{{HTTP: routes("inner")}}},
		"out": {Direction: resource.Outbound, FilterChains: []*resource.FilterChain{{HTTP: routes("orders:80", "*.apps", "*", "10.0.0.1", "[::1]:80", "localhost", "Web.")}, {HTTP: &resource.HTTPManager{RouteConfigName: "r"}}}},
	}, Routes: map[string]*resource.RouteConfig{"r": {VirtualHosts: []*resource.VirtualHost{{Domains: []string{"payments"}}}}}}
	var m meshNames
	if m.Has("orders") {
		t.Error("a name is known before there is a configuration")
	}
	m.update(s)
	for name, want := range map[string]bool{
		"orders": true, "payments": true, "web": true,
		"inner": false, "localhost": false, "10.0.0.1": false, "::1": false, "*.apps": false, "": false, "apps": false,
	} {
		if m.Has(name) != want {
			t.Errorf("%q: %v, want %v", name, !want, want)
		}
	}
}

func TestDNSIsServedOnLoopbackWithAProperRange(t *testing.T) {
	for _, tc := range []struct{ dns, network, want string }{
		{"127.0.0.1:15053", "", ""},
		{"[::1]:15053", "10.200.0.0/20", ""},
		{"0.0.0.0:53", "", "--dns: "},
		{"localhost", "", "--dns: "},
		{"127.0.0.1:53", "10.0.0.1/8", "--dns-range: "},
		{"127.0.0.1:53", "fd00::/64", "--dns-range: "},
		{"127.0.0.1:53", "wide", "--dns-range: "},
	} {
		o := Options{DNS: tc.dns, DNSRange: tc.network}
		_, _, err := o.dnsConfig()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want)) {
			t.Errorf("%s %s: %v, want %q", tc.dns, tc.network, err, tc.want)
		}
	}
}
