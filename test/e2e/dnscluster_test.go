// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/outrigger-mesh/outrigger/pkg/dns/dnstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// byName is a proxy with a STRICT_DNS cluster (/) and a LOGICAL_DNS one (/logical), a
// DNS server and two instances that differ in their addresses.
type byName struct {
	t             *testing.T
	dns           *dnstest.Server
	admin, listen string
	port          int
	proxy         *mesh.Process
}

// instances start at 127.0.0.1 and 127.0.0.2 with the same port; they answer with their
// address and the host that they were asked for.
func (b *byName) instances() {
	for range 20 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.t.Fatal(err)
		}
		b.port = first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", b.port))
		if err != nil {
			_ = first.Close()
			continue
		}
		for _, l := range []net.Listener{first, second} {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				host, _, _ := net.SplitHostPort(l.Addr().String())
				fmt.Fprintf(w, "%s as %s", host, r.Host)
			}))
			_ = s.Listener.Close()
			s.Listener = l
			s.Start()
			b.t.Cleanup(s.Close)
		}
		return
	}
	b.t.Fatal("no port that is free on both addresses")
}

func (b *byName) bootstrap() string {
	cluster := func(name, kind, host string) string {
		return fmt.Sprintf(`
  - name: %s
    type: %s
    connect_timeout: 1s
    dns_refresh_rate: 0.05s
    dns_failure_refresh_rate: {base_interval: 0.02s, max_interval: 0.05s}
    dns_lookup_family: V4_ONLY
    typed_dns_resolver_config:
      name: envoy.network.dns_resolver.cares
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
        resolvers: [%[3]s]
        dns_resolver_options: {no_default_search_domain: true}
        query_timeout_seconds: 1
        query_tries: 1
    load_assignment: {cluster_name: %[1]s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %[4]s, port_value: %[5]d}}}}]}]}`,
			name, kind, mesh.SocketAddress(b.dns.Addr().String()), host, b.port)
	}
	return mesh.Bootstrap{
		Admin: b.admin, Listen: b.listen,
		Routes: `
              - {match: {prefix: /logical}, route: {cluster: logical, auto_host_rewrite: true}}
` + mesh.AllTo("strict", "auto_host_rewrite: true"),
		Clusters: cluster("strict", "STRICT_DNS", "strict.test") + cluster("logical", "LOGICAL_DNS", "logical.test"),
	}.String()
}

// answered waits until requests are answered by exactly these instances, "503" stands
// for a refusal.
func (b *byName) answered(when, path, host string, want ...string) {
	b.t.Helper()
	b.proxy.Await(routeLimit, fmt.Sprintf("answers of %v %s", want, when), func() error {
		seen := map[string]bool{}
		for range 8 {
			a, err := mesh.Call(b.listen, "anything", path)
			if err != nil {
				return err
			}
			by, as, _ := strings.Cut(a.Body, " as ")
			if a.Status != 200 {
				by = fmt.Sprint(a.Status)
			} else if as != host {
				return fmt.Errorf("asked for host %q, want %q", as, host)
			}
			seen[by] = true
		}
		for _, w := range want {
			if !seen[w] {
				return fmt.Errorf("answers of %v", seen)
			}
		}
		if len(seen) != len(want) {
			return fmt.Errorf("answers of %v", seen)
		}
		return nil
	})
}

func (b *byName) stat(name string) (n int) {
	b.t.Helper()
	body, err := mesh.Get("http://" + b.admin + "/stats")
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+": "); ok {
			if _, err := fmt.Sscan(v, &n); err != nil {
				b.t.Fatal(err)
			}
			return n
		}
	}
	b.t.Errorf("there is no stat %s", name)
	return 0
}

// grows waits until a stat has grown by a few.
func (b *byName) grows(name string) {
	b.t.Helper()
	before := b.stat(name)
	b.proxy.Await(routeLimit, name+" to grow", func() error {
		if n := b.stat(name); n < before+3 {
			return fmt.Errorf("%d, it was %d", n, before)
		}
		return nil
	})
}

// TestEndpointsFollowTheirNamesAsEnvoysDo: addresses that come, go, and cannot be found
// out lead to the same endpoints and the same stats in the sidecar and in Envoy.
func TestEndpointsFollowTheirNamesAsEnvoysDo(t *testing.T) {
	t.Parallel()
	mesh.Both(t, func(t *testing.T, program string) {
		t.Parallel()
		b := &byName{t: t, admin: mesh.FreeAddress(t), listen: mesh.FreeAddress(t)}
		var err error
		if b.dns, err = dnstest.Start("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.dns.Close)
		b.instances()
		b.dns.Set("strict.test.", dnstest.Addresses("127.0.0.1", "127.0.0.2"))
		b.dns.Set("logical.test.", dnstest.Addresses("127.0.0.1", "127.0.0.2"))
		b.proxy = mesh.StartProxy(t, program, t.TempDir(), b.bootstrap(), b.admin)
		b.answered("at first", "/", "strict.test", "127.0.0.1", "127.0.0.2")
		b.answered("at first", "/logical", "logical.test", "127.0.0.1")
		b.grows("cluster.strict.update_no_rebuild")
		body, err := mesh.Get("http://" + b.admin + "/clusters")
		if err != nil || !strings.Contains(body, fmt.Sprintf("strict::127.0.0.2:%d::hostname::strict.test\n", b.port)) {
			t.Errorf("/clusters has no host name (%v):\n%s", err, body)
		}

		for what, zone := range map[string]dnstest.Zone{
			"a failure of the server": {Code: dnsmessage.RCodeServerFailure}, "a refusal": {Code: dnsmessage.RCodeRefused}, "silence": {Silent: true},
		} {
			b.dns.Set("strict.test.", zone)
			b.dns.Set("logical.test.", zone)
			b.grows("cluster.strict.update_failure")
			b.grows("cluster.logical.update_failure")
			b.answered("after "+what, "/", "strict.test", "127.0.0.1", "127.0.0.2")
			b.answered("after "+what, "/logical", "logical.test", "127.0.0.1")
		}

		// Connections to the first address may go on.
		b.dns.Set("logical.test.", dnstest.Addresses("127.0.0.2"))
		b.dns.Set("strict.test.", dnstest.Addresses("127.0.0.2"))
		b.answered("when one went", "/", "strict.test", "127.0.0.2")

		b.dns.Remove("strict.test.")
		b.dns.Remove("logical.test.")
		b.answered("when the name went", "/", "strict.test", "503")
		b.grows("cluster.strict.update_success")
		b.grows("cluster.logical.update_failure")
		if a, err := mesh.Call(b.listen, "anything", "/logical"); err != nil || a.Status != 200 {
			t.Errorf("a logical cluster whose name went: %v %v", a, err)
		}
		b.dns.Set("strict.test.", dnstest.Addresses("127.0.0.1"))
		b.answered("when the name came back", "/", "strict.test", "127.0.0.1")
		for _, name := range []string{"update_attempt", "update_success", "update_failure", "update_no_rebuild"} {
			t.Logf("cluster.strict.%s: %d, of logical: %d", name, b.stat("cluster.strict."+name), b.stat("cluster.logical."+name))
		}
	})
}
