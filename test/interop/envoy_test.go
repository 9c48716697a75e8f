// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// A link is what one proxy speaks to the next: fields of the first's cluster, and
// what the second's listener needs for it.
type link struct {
	name           string
	cluster        string
	transport      string
	listenerFilter string
}

// links are those of the test, with certificates in a folder.
func links(p *paper) []link {
	tls := func(context, more string) string {
		return fmt.Sprintf(`{name: tls, typed_config: {"@type": %stransport_sockets.tls.v3.%s%s}}`, types, context, more)
	}
	up := func(certificate string) string {
		return "transport_socket: " + tls("UpstreamTlsContext", fmt.Sprintf(", sni: far.example, common_tls_context: {alpn_protocols: [h2], %s validation_context: {trusted_ca: {filename: %s}, match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: %s}}]}}", certificate, p.ca, farID)) + ","
	}
	down := func(more, validation string) string {
		return tls("DownstreamTlsContext", fmt.Sprintf(", %s common_tls_context: {alpn_protocols: [h2, http/1.1], %s%s}", more, p.far, validation))
	}
	const proxyFilter = `{name: proxy, typed_config: {"@type": ` + types + `filters.listener.proxy_protocol.v3.ProxyProtocol}}`
	return []link{
		{name: "HTTP/1.1"},
		{name: "HTTP/2", cluster: http2},
		{name: "HTTP/2 over TLS", cluster: http2 + up(""), transport: down("", "")},
		{
			name: "HTTP/2 over mutual TLS", cluster: http2 + up(p.near+","),
			transport: down("require_client_certificate: true,", fmt.Sprintf(", validation_context: {trusted_ca: {filename: %s}, match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: %s}}]}", p.ca, nearID)),
		},
		{name: "HTTP/2 behind PROXY v2", cluster: http2 + proxyV2, listenerFilter: proxyFilter},
	}
}

// proxyV2 has a cluster's connections begin with a PROXY header.
const proxyV2 = `transport_socket: {name: proxy, typed_config: {"@type": ` + types + `transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, config: {version: V2}, transport_socket: {name: raw, typed_config: {"@type": ` + types + `transport_sockets.raw_buffer.v3.RawBuffer}}}},`

// TestEnvoyIsAPeerOnEitherSide sends every kind of traffic through Envoy and a
// sidecar, in both orders, by every protocol between the two.
func TestEnvoyIsAPeerOnEitherSide(t *testing.T) {
	mesh.NeedPeers(t)
	app, echo := mesh.StartApp(t, t.TempDir(), "app"), echoServer(t)
	paper := newPaper(t)
	for _, envoyFirst := range []bool{true, false} {
		first, second := newConfig(t), newConfig(t)
		entries := map[string]string{}
		for _, l := range links(paper) {
			far := second.listener(l.transport, l.listenerFilter, http(second.cluster(app.Address, ""), second.cluster(echo, ""), true))
			cluster := first.cluster(far, l.cluster)
			entries[l.name] = first.listener("", "", http(cluster, cluster, false))
		}
		tcpEntry := tcpChain(t, first, second)
		name := "sidecar to Envoy"
		if envoyFirst {
			name = "Envoy to sidecar"
			second.sidecar()
			first.envoy()
		} else {
			second.envoy()
			first.sidecar()
		}
		for _, l := range links(paper) {
			halfClose := func(c *client) bool { return l.cluster != "" && (c.http2 || !envoyFirst) }
			t.Run(name+" by "+l.name, func(t *testing.T) { allTraffic(t, entries[l.name], halfClose) })
		}
		t.Run(name+" by TCP behind PROXY v2", func(t *testing.T) { tcpTraffic(t, tcpEntry) })
	}
}

// allTraffic sends requests, WebSockets and CONNECT by both protocols.
func allTraffic(t *testing.T, entry string, halfClose func(*client) bool) {
	for _, c := range []*client{newClient(t, entry, false), newClient(t, entry, true)} {
		t.Run("requests of "+c.name, c.requests)
		t.Run("a WebSocket of "+c.name, func(t *testing.T) {
			chats(t, c.webSocket(t, "app"))
		})
		t.Run("CONNECT of "+c.name, func(t *testing.T) { talk(t, c.connect(t), halfClose(c)) })
	}
}

// chats has messages of all kinds echoed, to the closing handshake.
func chats(t *testing.T, ws *mesh.WebSocket) {
	t.Helper()
	for _, size := range []int{0, 1, 125, 126, 1 << 16, 2 << 20} {
		if err := ws.Echo(mesh.BinaryFrame, bytes.Repeat([]byte("x"), size)); err != nil {
			t.Fatalf("a message of %d bytes: %v", size, err)
		}
	}
	if err := ws.Echo(mesh.CloseFrame, []byte{3, 232}); err != nil {
		t.Fatalf("the closing handshake: %v", err)
	}
	if _, _, err := ws.Receive(); err == nil {
		t.Error("there was more behind the end")
	}
}

// talk has an echo say everything again, and ends its own direction: before all is
// back where halfClose, which Envoy takes for the end of both over HTTP/1.1.
func talk(t *testing.T, s duplex, halfClose bool) {
	t.Helper()
	const size = 3 << 20
	block := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	sent := make(chan error, 1)
	go func() {
		_, err := s.Write(block)
		if err == nil && halfClose {
			err = s.CloseWrite()
		}
		sent <- err
	}()
	got := make([]byte, size)
	if n, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, block) {
		t.Errorf("%d of %d bytes came back: %v", n, size, err)
	}
	if err := <-sent; err != nil {
		t.Errorf("sending: %v", err)
	}
	_ = s.CloseWrite()
	if rest, err := io.ReadAll(s); len(rest) > 0 || err != nil && halfClose {
		t.Errorf("behind the end came %q, %v", rest, err)
	}
	_ = s.Close()
}

// tcpChain goes through both proxies as bytes, with a PROXY header on each hop.
func tcpChain(t *testing.T, first, second *config) string {
	t.Helper()
	end := proxyReader(t)
	const filter = `{name: proxy, typed_config: {"@type": ` + types + `filters.listener.proxy_protocol.v3.ProxyProtocol}}`
	far := second.listener("", filter, tcp(second.cluster(end, proxyV2)))
	return first.listener("", "", tcp(first.cluster(far, proxyV2)))
}

// tcpTraffic checks that the far end learns who the client is, and the bytes.
func tcpTraffic(t *testing.T, entry string) {
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).Dial("tcp", entry)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // all was read
	_ = c.SetDeadline(deadline())
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%s hello", c.LocalAddr())
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("got %q %v, want %q", got[:n], err, want)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || string(rest) != " bye" {
		t.Errorf("behind the half-close: %q %v", rest, err)
	}
}

// requests are exchanged with bodies both ways.
func (c *client) requests(t *testing.T) {
	for _, size := range []int{0, 1, 100_000, 3_000_000} {
		q, err := nethttp.NewRequest(nethttp.MethodPost, "http://"+c.entry+"/count", strings.NewReader(strings.Repeat("b", size)))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.do(t, q); strings.TrimSpace(got) != fmt.Sprint(size) {
			t.Errorf("a body of %d bytes was counted as %q", size, got)
		}
		q, _ = nethttp.NewRequest(nethttp.MethodGet, fmt.Sprintf("http://%s/bytes?n=%d", c.entry, size), nil)
		if got := c.do(t, q); len(got) != size {
			t.Errorf("%d of %d bytes", len(got), size)
		}
	}
}
