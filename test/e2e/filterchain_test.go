// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// The vocabulary of random filter chains and connections.
var (
	chainPorts   = []int{0, 443, 8443}
	chainDst     = []string{"", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"}
	chainNames   = []string{"", "a.example", "*.example", "*.b.example"}
	chainNets    = []string{"", "tls", "raw_buffer"}
	chainALPN    = []string{"", "h2", "http/1.1"}
	chainTypes   = []string{"ANY", "SAME_IP_OR_LOOPBACK", "EXTERNAL"}
	chainSources = []string{"", "192.0.2.0/24", "192.0.2.7/32", "127.0.0.0/8"}
	chainFrom    = []int{0, 5000}

	sentPorts   = []int{443, 8443, 80}
	sentDst     = []string{"10.1.2.3", "10.1.9.9", "10.9.9.9", "172.16.0.1"}
	sentNames   = []string{"a.example", "b.example", "a.b.example", "c.a.b.example", "other"}
	sentALPN    = [][]string{nil, {"h2"}, {"http/1.1", "h2"}, {"x"}}
	sentSources = []string{"192.0.2.7", "192.0.2.8", "127.0.0.1", "198.51.100.1"}
	sentFrom    = []int{5000, 6000}
)

func oneOf[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// TestFilterChainsAreChosenAsEnvoyDoes compares, over random chains and connections,
// which chain a connection gets. A PROXY header says where it is from and goes to.
func TestFilterChainsAreChosenAsEnvoyDoes(t *testing.T) {
	mesh.NeedPeers(t)
	const listeners, chains, connections = 12, 10, 60
	rng := rand.New(rand.NewPCG(1, 40))
	var upstreams []string
	for i := range chains + 1 {
		upstreams = append(upstreams, namedUpstream(t, fmt.Sprint("chain ", i)))
	}
	seed := rng.Uint64()
	envoy, sidecar := newChains(t, rand.New(rand.NewPCG(seed, 1)), listeners, chains, upstreams), newChains(t, rand.New(rand.NewPCG(seed, 1)), listeners, chains, upstreams)
	mesh.StartEnvoy(t, envoy.dir, envoy.text, envoy.admin)
	mesh.StartFile(t, sidecar.dir, sidecar.text, sidecar.admin)
	seen := map[string]int{}
	for i := range listeners {
		for range connections {
			first := randomConnection(t, rng)
			want, got := answer(t, envoy.address[i], first), answer(t, sidecar.address[i], first)
			if seen[want]++; got != want {
				t.Errorf("listener %d, %.60q: %q, Envoy says %q\n%s", i, first, got, want, envoy.chains[i])
			}
		}
	}
	if len(seen) < chains/2 || seen[""] == 0 {
		t.Errorf("the connections tell too little apart: %v", seen)
	}
	t.Logf("%d connections through %d listeners go where Envoy's go: %v", listeners*connections, listeners, seen)
}

// namedUpstream tells everyone its name.
func namedUpstream(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

type chainSet struct {
	dir, text, admin string
	address, chains  []string
}

func newChains(t *testing.T, rng *rand.Rand, listeners, chains int, upstreams []string) *chainSet {
	t.Helper()
	s := &chainSet{dir: t.TempDir(), admin: mesh.FreeAddress(t)}
	var b strings.Builder
	fmt.Fprintf(&b, "node: {id: chains, cluster: chains}\nadmin: {address: %s}\nstatic_resources:\n  listeners:\n", mesh.SocketAddress(s.admin))
	proxyTo := func(i int) string {
		return fmt.Sprintf(`filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c%d}}]`, i)
	}
	const types = `typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.`
	for i := range listeners {
		address := mesh.FreeAddress(t)
		s.address = append(s.address, address)
		var list strings.Builder
		used := map[string]bool{}
		for n := 0; n < chains; {
			m := randomMatch(rng)
			if used[m] {
				continue
			}
			used[m] = true
			fmt.Fprintf(&list, "    - {name: chain%d, filter_chain_match: {%s}, %s}\n", n, m, proxyTo(n))
			n++
		}
		s.chains = append(s.chains, list.String())
		fmt.Fprintf(&b, "  - name: l%d\n    address: %s\n    listener_filters:\n    - {name: p, %sproxy_protocol.v3.ProxyProtocol}}\n    - {name: t, %stls_inspector.v3.TlsInspector}}\n    filter_chains:\n%s",
			i, mesh.SocketAddress(address), types, types, list.String())
		if rng.IntN(2) == 0 {
			fmt.Fprintf(&b, "    default_filter_chain: {name: last, %s}\n", proxyTo(chains))
		}
	}
	b.WriteString("  clusters:\n")
	for i, u := range upstreams {
		fmt.Fprintf(&b, "  - {name: c%d, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: c%d, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}}\n", i, i, mesh.SocketAddress(u))
	}
	s.text = b.String()
	return s
}

// randomMatch uses few criteria at a time, so that many connections match.
func randomMatch(rng *rand.Rand) string {
	var parts []string
	add := func(format string, v any, unset bool) {
		if !unset && rng.IntN(3) == 0 {
			parts = append(parts, fmt.Sprintf(format, v))
		}
	}
	prefix := func(name, cidr string) {
		ip, bits, _ := strings.Cut(cidr, "/")
		add(name+": [{address_prefix: "+ip+", prefix_len: %s}]", bits, cidr == "")
	}
	port, from := oneOf(rng, chainPorts), oneOf(rng, chainFrom)
	name, transport, alpn, kind := oneOf(rng, chainNames), oneOf(rng, chainNets), oneOf(rng, chainALPN), oneOf(rng, chainTypes)
	add("destination_port: %d", port, port == 0)
	prefix("prefix_ranges", oneOf(rng, chainDst))
	add("server_names: [%q]", name, name == "")
	add("transport_protocol: %s", transport, transport == "")
	add("application_protocols: [%q]", alpn, alpn == "")
	prefix("direct_source_prefix_ranges", oneOf(rng, []string{"", "127.0.0.0/8", "10.0.0.0/8"}))
	add("source_type: %s", kind, kind == "ANY")
	prefix("source_prefix_ranges", oneOf(rng, chainSources))
	add("source_ports: [%d]", from, from == 0)
	return strings.Join(parts, ", ")
}

// randomConnection is what a client sends first.
func randomConnection(t *testing.T, rng *rand.Rand) []byte {
	first := fmt.Appendf(nil, "PROXY TCP4 %s %s %d %d\r\n", oneOf(rng, sentSources), oneOf(rng, sentDst), oneOf(rng, sentFrom), oneOf(rng, sentPorts))
	if rng.IntN(3) == 0 {
		return append(first, "plain text\n"...)
	}
	a, b := net.Pipe()
	done := make(chan struct{})
	name, protos := oneOf(rng, sentNames), oneOf(rng, sentALPN)
	go func() {
		defer close(done)
		_ = tls.Client(a, &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true}).Handshake() //nolint:gosec // nothing is verified: only the hello is of interest
		_ = a.Close()
	}()
	buf := make([]byte, 4096)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	<-done
	return append(first, buf[:n]...)
}

// answer is what a connection that begins so is told, "" where it is closed.
func answer(t *testing.T, address string, first []byte) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // all was read
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(first); err != nil {
		return ""
	}
	b, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatalf("no answer to %.60q", first)
	}
	return string(b)
}
