// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// connectRig is a rig whose only route ends CONNECT at cluster c.
func connectRig(t *testing.T, to string, edit func(c *resource.Cluster)) net.Conn {
	t.Helper()
	r := newRig(t, func(s *resource.Snapshot) {
		edit(withCluster(s, "c", to))
		s.Listeners["l"].FilterChains[0].HTTP.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true}}
		route := s.Routes["r"].VirtualHosts[0].Routes[0]
		route.Match = resource.RouteMatch{Kind: resource.PathConnect}
		route.Action.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true, Terminate: true}}
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, connect); err != nil {
		t.Fatal(err)
	}
	return c
}

// accepted returns what the first connection sends up to a line, and answers it.
func accepted(t *testing.T, l net.Listener) <-chan string {
	got := make(chan string, 1)
	go func() {
		defer close(got)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			got <- err.Error()
			return
		}
		got <- line
		_, _ = io.WriteString(c, "pong\n")
	}()
	t.Cleanup(func() { _ = l.Close() })
	return got
}

func TestACONNECTThatEndsHereIsSecuredAsItsClusterSays(t *testing.T) {
	m := newMint(t)
	config := m.config(m.issue(shopID, time.Now().Add(time.Hour)))
	config.ClientAuth = tls.RequireAndVerifyClientCert
	for _, trusted := range []bool{true, false} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			t.Fatal(err)
		}
		got := accepted(t, l)
		c := connectRig(t, l.Addr().String(), func(c *resource.Cluster) {
			v := m.trust(shopID)
			if !trusted {
				v = m.trust(webID)
			}
			c.TLS = &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{m.issue(webID, time.Now().Add(time.Hour))}, Validation: v}, MaxSessionKeys: 1}
		})
		in := bufio.NewReader(c)
		a, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
		if err != nil {
			t.Fatal(err)
		}
		if !trusted {
			if a.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("an endpoint with another identity: answered %s, want 503", a.Status)
			}
			continue
		}
		if a.StatusCode != http.StatusOK {
			t.Fatalf("answered %s", a.Status)
		}
		if _, err := io.WriteString(c, "ping\n"); err != nil {
			t.Fatal(err)
		}
		if line := <-got; line != "ping\n" {
			t.Errorf("the endpoint got %q", line)
		}
		if line, err := in.ReadString('\n'); err != nil || line != "pong\n" {
			t.Errorf("the client got %q, %v", line, err)
		}
	}
}

func TestACONNECTThatEndsHereTellsItsClient(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := accepted(t, l)
	c := connectRig(t, l.Addr().String(), func(c *resource.Cluster) { c.ProxyProtocol = 1 })
	me, _, _ := net.SplitHostPort(c.LocalAddr().String())
	if line := <-got; !strings.HasPrefix(line, "PROXY TCP4 "+me+" ") {
		t.Errorf("the endpoint got %q", line)
	}
}
