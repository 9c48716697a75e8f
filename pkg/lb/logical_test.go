// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"net/netip"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestTheHostOfALogicalClusterStaysWhenItsAddressMoves(t *testing.T) {
	cfg := &resource.Cluster{Name: "c", Type: resource.LogicalDNS, LB: resource.LoadBalancing{Policy: resource.RoundRobin}}
	at := func(name, ip string) *resource.Assignment {
		e := resource.Endpoint{Hostname: name, Address: resource.Address{Host: ip, Port: 80}, Weight: 1}
		return &resource.Assignment{Localities: []resource.Locality{{Endpoints: []resource.Endpoint{e}}}}
	}
	c := new(Cluster)
	c.Update(cfg, at("x.test", "10.0.0.1"))
	h := c.View().Hosts()[0]
	for _, ip := range []string{"10.0.0.2", "fd00::1", "10.0.0.1"} {
		c.Update(cfg, at("x.test", ip))
		if got := c.View().Hosts()[0]; got != h || h.Gone() || h.Dial().Addr().String() != ip {
			t.Errorf("moved to %s: the same host %t, gone %t, dialled at %s", ip, got == h, h.Gone(), h.Dial())
		}
		if c.View().Find(h.Dial()) != h {
			t.Errorf("moved to %s: not found there", ip)
		}
		if was := netip.MustParseAddrPort("10.0.0.1:80"); ip != "10.0.0.1" && c.View().Find(was) != nil {
			t.Errorf("moved to %s: found where it was", ip)
		}
	}
	c.Update(cfg, at("y.test", "10.0.0.1"))
	if c.View().Hosts()[0] == h || !h.Gone() {
		t.Error("another name is the same host")
	}
}
