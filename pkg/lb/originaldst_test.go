// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestOriginalDestinationsAreHostsAsLongAsTheyAreUsed(t *testing.T) {
	o := NewOriginals(resource.OriginalDst{Cleanup: 5 * time.Second})
	sec := func(n int) int64 { return int64(time.Duration(n) * time.Second) }
	a, b := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("[2001:db8::1]:443")
	first, _ := o.Pick(a, sec(10))
	busy, _ := o.Pick(b, sec(10))
	if first == nil || first.Addr() != a || busy == nil || busy.Addr() != b {
		t.Fatalf("picked %v and %v", first, busy)
	}
	if again, left := o.Pick(netip.MustParseAddrPort("[::ffff:192.0.2.1]:80"), sec(12)); again != first || left {
		t.Errorf("the same destination: another host %v, left %v", again, left)
	}
	busy.Active.Add(1)
	c := netip.MustParseAddrPort("192.0.2.3:80")
	if _, left := o.Pick(c, sec(20)); !left || !first.Gone() || busy.Gone() || o.Len() != 2 {
		t.Errorf("after the interval: left %v, unused gone %v, busy gone %v, %d hosts", left, first.Gone(), busy.Gone(), o.Len())
	}
	if next, _ := o.Pick(a, sec(21)); next == nil || next == first {
		t.Errorf("a host that has gone is picked again: %v", next)
	}
	o.Close()
	if !busy.Gone() || o.Len() != 0 {
		t.Errorf("after Close: gone %v, %d hosts", busy.Gone(), o.Len())
	}
}

func TestForbiddenDestinationsHaveNoHost(t *testing.T) {
	o := NewOriginals(resource.OriginalDst{Cleanup: time.Second})
	for _, text := range []string{
		"127.0.0.1:15000", "127.8.8.8:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "0.0.0.0:80", "[::]:80", "169.254.169.254:80",
		"[::ffff:169.254.169.254]:80", "[fe80::1]:80", "[fe80::1%eth0]:80", "[fd00:ec2::254]:80", "224.0.0.1:80", "[ff02::1]:80", "255.255.255.255:80", "192.0.2.1:0",
	} {
		if h, _ := o.Pick(netip.MustParseAddrPort(text), 1); h != nil {
			t.Errorf("%s has a host", text)
		}
	}
	if h, _ := o.Pick(netip.AddrPort{}, 1); h != nil {
		t.Error("no destination has a host")
	}
	port := NewOriginals(resource.OriginalDst{Cleanup: time.Second, Port: 8443})
	if h, _ := port.Pick(netip.MustParseAddrPort("192.0.2.1:80"), 1); h == nil || h.Addr().Port() != 8443 {
		t.Errorf("with another port: %v", h)
	}
}

func TestOriginalDestinationsAreBoundedAndCostNothingOnceThere(t *testing.T) {
	o := NewOriginals(resource.OriginalDst{Cleanup: time.Hour})
	for i := range maxOriginals + 10 {
		o.Pick(netip.MustParseAddrPort(fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255)), int64(time.Hour))
	}
	if o.Len() != maxOriginals {
		t.Errorf("%d hosts, want %d", o.Len(), maxOriginals)
	}
	to := netip.MustParseAddrPort("10.0.0.1:80")
	if n := testing.AllocsPerRun(100, func() { o.Pick(to, int64(time.Hour)) }); n != 0 {
		t.Errorf("%v allocations for a host that is there", n)
	}
}
