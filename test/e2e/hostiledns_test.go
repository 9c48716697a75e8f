// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/outrigger-mesh/outrigger/pkg/dns/dnstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// lured is where forged answers lead.
const lured = "127.0.7.7"

// forged is an answer with another's address in it.
func forged(answer []byte) []byte {
	return bytes.ReplaceAll(answer, []byte{127, 0, 0, 1}, netip.MustParseAddr(lured).AsSlice())
}

// byHostileName is a sidecar with one STRICT_DNS cluster, whose server says what it is
// told to. Instances answer at every address of loopback.
type byHostileName struct {
	*mesh.Sidecar
	dns    *dnstest.Server
	listen string
	lured  atomic.Int64 // requests that came to a forged address
}

func newByHostileName(t *testing.T) *byHostileName {
	t.Helper()
	b := &byHostileName{listen: mesh.FreeAddress(t)}
	var err error
	if b.dns, err = dnstest.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.dns.Close)
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr); strings.HasPrefix(at.String(), lured+":") {
			b.lured.Add(1)
		}
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	admin := mesh.FreeAddress(t)
	b.Sidecar = mesh.StartFile(t, t.TempDir(), mesh.Bootstrap{
		Admin: admin, Listen: b.listen,
		Routes: mesh.AllTo("c"),
		Clusters: fmt.Sprintf(`
  - name: c
    type: STRICT_DNS
    connect_timeout: 1s
    dns_refresh_rate: 0.1s
    respect_dns_ttl: true
    dns_failure_refresh_rate: {base_interval: 0.05s, max_interval: 0.1s}
    dns_lookup_family: V4_ONLY
    typed_dns_resolver_config:
      name: envoy.network.dns_resolver.cares
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
        resolvers: [%s]
        dns_resolver_options: {no_default_search_domain: true}
        query_timeout_seconds: 1
        query_tries: 1
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: app.test, port_value: %d}}}}]}]}
`, mesh.SocketAddress(b.dns.Addr().String()), l.Addr().(*net.TCPAddr).Port),
	}.String(), admin)
	return b
}

// members waits until the cluster has so many endpoints.
func (b *byHostileName) members(n int) {
	b.AwaitStat("cluster.c.membership_total", func(is int) bool { return is == n })
}

// refreshed waits until the name was asked for a few more times.
func (b *byHostileName) refreshed(t *testing.T) {
	t.Helper()
	const what = "A app.test."
	if n := b.dns.Queries(what); !b.dns.Wait(what, n+4, 30*time.Second) {
		t.Fatalf("the name is not asked for any more after %d queries", n)
	}
}

// TestHostileAnswersOfDNSChangeNothing has a resolver, or who can send in its name, say
// everything that is wrong, under load: the last good endpoints stay, nothing goes to a
// forged address, and what is only unusual is followed.
func TestHostileAnswersOfDNSChangeNothing(t *testing.T) {
	t.Parallel() // it mostly waits for queries to time out
	b := newByHostileName(t)
	good := func(ttl uint32) dnstest.Zone {
		z := dnstest.Addresses("127.0.0.1")
		z.TTL = ttl
		return z
	}
	const ttl = 0 // asked again as soon as may be
	b.dns.Set("app.test.", good(ttl))
	b.members(1)
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: b.listen, Host: "app", Conns: 10, Rate: 200})

	var many []string
	for i := range 500 {
		many = append(many, fmt.Sprintf("127.0.%d.%d", 1+i/250, 1+i%250))
	}
	with := func(edit func(*dnstest.Zone)) dnstest.Zone {
		z := good(ttl)
		edit(&z)
		return z
	}
	garbled := func(edit func([]byte)) func([]byte) []byte {
		return func(answer []byte) []byte {
			edit(answer)
			return answer
		}
	}
	otherID := func(answer []byte) []byte {
		answer[0]++
		return forged(answer)
	}
	bad := map[string]dnstest.Zone{
		"SERVFAIL":                         {Code: dnsmessage.RCodeServerFailure},
		"silence":                          {Silent: true},
		"aliases in a circle":              with(func(z *dnstest.Zone) { z.Addresses, z.Aliases = nil, []string{"app.test.", "b.test.", "app.test."} }),
		"another id, and no right one":     with(func(z *dnstest.Zone) { z.Instead = otherID }),
		"an answer that is none":           with(func(z *dnstest.Zone) { z.Instead = func([]byte) []byte { return []byte("nonsense") } }),
		"nothing":                          with(func(z *dnstest.Zone) { z.Instead = func([]byte) []byte { return nil } }),
		"half of an answer":                with(func(z *dnstest.Zone) { z.Instead = func(a []byte) []byte { return a[:len(a)-6] } }),
		"more answers than there are":      with(func(z *dnstest.Zone) { z.Instead = garbled(func(a []byte) { a[6], a[7] = 0xff, 0xff }) }),
		"a name that points at itself":     with(func(z *dnstest.Zone) { z.Instead = garbled(func(a []byte) { a[26], a[27] = 0xc0, 26 }) }),
		"an answer to a question not made": with(func(z *dnstest.Zone) { z.Instead = func(a []byte) []byte { a[13] ^= 1; return forged(a) } }),
	}
	for what, z := range bad {
		fails := b.AwaitStat("cluster.c.update_failure", func(int) bool { return true })
		b.dns.Set("app.test.", z)
		b.AwaitStat("cluster.c.update_failure", func(n int) bool { return n > fails })
		b.members(1)
		b.dns.Set("app.test.", good(ttl))
		ok := b.AwaitStat("cluster.c.update_success", func(int) bool { return true })
		b.AwaitStat("cluster.c.update_success", func(n int) bool { return n > ok })
		load.Take().Flawless(t, what)
	}
	// Who answers first with another id does not win.
	b.dns.Set("app.test.", with(func(z *dnstest.Zone) { z.Before = []func([]byte) []byte{otherID, otherID, otherID} }))
	b.refreshed(t)
	b.members(1)
	// What is too long for a datagram comes by TCP, whether it says so or is only long.
	tcp := b.dns.ByTCP()
	all := dnstest.Addresses(many...)
	all.TTL = ttl
	b.dns.Set("app.test.", all)
	b.members(500)
	load.AwaitSent(100)
	all.Truncated = true
	b.dns.Set("app.test.", all)
	b.refreshed(t)
	b.members(500)
	if b.dns.ByTCP() <= tcp {
		t.Error("500 addresses came without TCP")
	}
	// A TTL of zero is no reason to ask without a break.
	b.dns.Set("app.test.", good(0))
	b.members(1)
	before, began := b.dns.Queries("A app.test."), time.Now()
	mesh.Pass(2 * time.Second)
	rate := float64(b.dns.Queries("A app.test.")-before) / time.Since(began).Seconds()
	if rate > 12 {
		t.Errorf("%.0f queries a second with a TTL of 0 and a refresh rate of 100 ms", rate)
	}
	tally := load.Stop()
	tally.Flawless(t, "of good answers")
	if n := b.lured.Load(); n > 0 {
		t.Errorf("%d requests went to a forged address", n)
	}
	mesh.Conformance(t, "D14", "%d kinds of bad answers: the last good endpoints stay, no request failed or went to a forged address; 500 addresses by TCP; %.1f queries a second with a TTL of 0",
		len(bad)+1, rate)
}
