// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A filter that is off for a port does not make its server-first protocol wait.
func TestAnInspectorThatIsOffForAPortIsNotWaitedForThere(t *testing.T) {
	for name, disabled := range map[string]*resource.ConnectionMatch{
		"for this port":      {FromPort: 3306, ToPort: 3307},
		"for all but others": {Not: &resource.ConnectionMatch{Or: []*resource.ConnectionMatch{{FromPort: 443, ToPort: 444}, {FromPort: 8443, ToPort: 8444}}}},
		"for both at once":   {And: []*resource.ConnectionMatch{{FromPort: 1, ToPort: 65536}, {FromPort: 3306, ToPort: 3307}}},
	} {
		l := newServerFirst(t, func(ln *resource.Listener) {
			ln.Detection = nil
			ln.Filters = []resource.ListenerFilter{{Kind: resource.RestoreOriginalDst}, {Kind: resource.TLSInspector, Disabled: disabled}}
		})
		to := "10.9.9.9:3306"
		l.world.Redirect(func(_, _ netip.AddrPort) netip.AddrPort { return netip.MustParseAddrPort(to) })
		if d := l.greeted(); d > 20*time.Millisecond {
			t.Errorf("%s: greeted after %v", name, d)
		}
		to = "10.9.9.9:443"
		c := l.dial()
		if err := l.world.Run(time.Second); err != nil {
			t.Fatal(err)
		}
		if len(c.Received) > 0 || c.EOF {
			t.Errorf("%s: at another port the client was not waited for: %q", name, c.Received)
		}
		c.Close()
	}
}

// Where a chain's names have no addresses, it is for no connection, not for all.
func TestAChainWhoseDestinationIsNotKnownIsForNoConnection(t *testing.T) {
	l := newLooked(t, sim.Link{Latency: time.Millisecond}, func(ln *resource.Listener, _ *resource.Snapshot) {
		for _, ch := range ln.FilterChains {
			if ch.Name == "h2" {
				ch.Match, ch.DestinationNames = resource.FilterChainMatch{DestinationPort: 3306}, []string{"db"}
			}
		}
	})
	l.world.Redirect(func(_, _ netip.AddrPort) netip.AddrPort { return netip.MustParseAddrPort("10.9.9.9:3306") })
	c := l.dial()
	c.Write([]byte("x\r\n\r\n"))
	l.until("the bytes", time.Second, func() bool { return len(l.got["other"]) == 5 })
	if len(l.got["h2"]) > 0 {
		t.Errorf("the chain got %q", l.got["h2"])
	}
}

// When the first service of connections comes, the chain of requests becomes the default
// one: those who use it notice nothing.
func TestAChainThatBecomesTheDefaultOneKeepsItsConnections(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer s.Close()
	r := newRig(t, func(snap *resource.Snapshot) { withCluster(snap, "c", s.Listener.Addr().String()) })
	c := r.dial()
	in := bufio.NewReader(c)
	ask := func(when string) {
		t.Helper()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		a, err := http.ReadResponse(in, nil)
		if err != nil || a.StatusCode != 200 || a.Close {
			t.Fatalf("%s: %v %v", when, a, err)
		}
		_, _ = io.Copy(io.Discard, a.Body)
	}
	ask("before")
	only := r.snap.Listeners["l"]
	two := *only
	two.DefaultFilterChain = only.FilterChains[0]
	two.FilterChains = []*resource.FilterChain{{Name: "db", Match: resource.FilterChainMatch{DestinationPort: 5432}, TCP: tcpTo("c")}}
	two.Filters = []resource.ListenerFilter{{Kind: resource.RestoreOriginalDst}}
	r.snap.Listeners = map[string]*resource.Listener{"l": &two}
	r.apply(r.snap)
	ask("as the default chain")
	r.snap.Listeners = map[string]*resource.Listener{"l": only}
	r.apply(r.snap)
	ask("alone again")
}

func TestAFilterWithoutConfigurationRefusesEveryRequest(t *testing.T) {
	var saw func(string)
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", freeAddr(t))
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "dyn", Discovery: &resource.FilterDiscovery{}, Missing: true}}
		saw = logTo(t, s, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
	})
	if a, _ := r.get("/"); a.StatusCode != http.StatusInternalServerError {
		t.Errorf("got %d, want 500", a.StatusCode)
	}
	saw("500 NFCF filter_config_not_found")
}

// A CONNECT that ends at an endpoint of a cluster with TLS is not sent in the clear.
func TestATerminatedCONNECTUsesTheClustersTLS(t *testing.T) {
	m := newMint(t)
	config := m.config(m.issue(shopID, time.Now().Add(time.Hour)))
	config.ClientAuth = tls.RequireAndVerifyClientCert
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				word, _ := bufio.NewReader(c).ReadString('\n')
				fmt.Fprintf(c, "heard %s", word)
			}()
		}
	}()
	r := newRig(t, func(s *resource.Snapshot) {
		secured(m, s, l.Addr().String())
		s.Listeners["l"].FilterChains[0].TLS = nil
		vh := s.Routes["r"].VirtualHosts[0]
		route := *vh.Routes[0]
		action := *route.Action
		action.Upgrades = []resource.Upgrade{{Type: resource.UpgradeConnect, Enabled: true, Terminate: true}}
		route.Match, route.Action = resource.RouteMatch{Kind: resource.PathConnect}, &action
		vh.Routes = append([]*resource.Route{&route}, vh.Routes...)
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(c, connect)
	in := bufio.NewReader(c)
	a, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil || a.StatusCode != 200 {
		t.Fatalf("%v %v", a, err)
	}
	_, _ = io.WriteString(c, "a word\n")
	if got, err := in.ReadString('\n'); err != nil || strings.TrimSpace(got) != "heard a word" {
		t.Errorf("got %q, %v", got, err)
	}
}
