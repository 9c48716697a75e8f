// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"net/netip"
	"testing"
)

func TestASourceOfIPv6IsANetworkOf64Bits(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::",
		"2001:db8:1:2:ffff::1": "2001:db8:1:2::", "2001:db8:1:3::1": "2001:db8:1:3::", "fe80::1%eth0": "fe80::", "::1": "::",
	} {
		if got := SourceOf(netip.MustParseAddr(from)); got.String() != want {
			t.Errorf("%s counts for %s, want %s", from, got, want)
		}
	}
	if got := SourceOf(netip.Addr{}); got.IsValid() { // of a Unix socket
		t.Errorf("no address counts for %s", got)
	}
}
