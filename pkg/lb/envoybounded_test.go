// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Requests of a few keys that never end: each goes where Envoy sends it, also when
// the key's own host has too many.
func TestOverflowGoesWhereEnvoySendsIt(t *testing.T) {
	binary := envoyBinary(t)
	arrived, release := make(chan string), make(chan struct{})
	var hosts []netip.AddrPort
	for range otherWeights {
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case arrived <- r.Context().Value(http.LocalAddrContextKey).(net.Addr).String():
			case <-r.Context().Done():
			}
			<-release
		}))
		t.Cleanup(s.Close)
		hosts = append(hosts, netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://")))
	}
	cases := []envoyCase{}
	for _, c := range envoyCases {
		c.ours.HashBalanceFactor = 110
		c.common = map[string]any{"consistent_hashing_lb_config": map[string]any{"hash_balance_factor": 110}}
		cases = append(cases, c)
	}
	address := startEnvoy(t, binary, hosts, cases)
	var waiting []net.Conn
	t.Cleanup(func() {
		close(release)
		for _, c := range waiting {
			_ = c.Close()
		}
	})
	total := 0
	for _, c := range cases {
		cluster := c.cluster(hosts)
		p, overflowed := lb.NewPicker(&c.ours, 1), 0
		plain := c
		plain.ours.HashBalanceFactor = 0
		unbound, q := plain.cluster(hosts), lb.NewPicker(&plain.ours, 1)
		for i := range 100 {
			key := fmt.Sprint("key-", i%4)
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			waiting = append(waiting, conn)
			_, _ = fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: x\r\nX-Key: %s\r\n\r\n", c.name, key)
			want := <-arrived
			r := &lb.Request{Hash: lb.Hash(key), HasHash: true, Active: int64(i)}
			got := p.Pick(cluster.View(), r)
			if got.Text() != want {
				t.Fatalf("%s: request %d of %s went to %s, by Envoy to %s", c.name, i, key, got, want)
			}
			if q.Pick(unbound.View(), r).Text() != want {
				overflowed++
			}
			got.Active.Add(1)
		}
		if overflowed == 0 {
			t.Errorf("%s: no request overflowed: they show nothing", c.name)
		}
		total += overflowed
	}
	if total < 60 { // where keys lie depends on the ports
		t.Errorf("only %d of %d requests overflowed: they show little", total, 100*len(cases))
	}
}

// cluster is ours of the case.
func (c *envoyCase) cluster(hosts []netip.AddrPort) *lb.Cluster {
	l := resource.Locality{}
	for i, h := range hosts {
		l.Endpoints = append(l.Endpoints, resource.Endpoint{
			Address: resource.Address{Host: h.Addr().String(), Port: h.Port()}, Weight: c.weights[i],
		})
	}
	return lb.NewCluster(&resource.Cluster{LB: c.ours, Static: &resource.Assignment{Localities: []resource.Locality{l}}})
}
