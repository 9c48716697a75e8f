// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// longPatience is for what has to come through several processes on a busy machine.
const longPatience = 60 * time.Second

// serve runs f for every connection to an address in a namespace.
func (w *world) serve(t *testing.T, ns, address string, f func(net.Conn)) {
	t.Helper()
	var l net.Listener
	in(t, ns, who{}, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(longPatience))
				f(c)
			}()
		}
	}()
}

// dial connects as a user; what comes is the caller's to close.
func (w *world) dial(t *testing.T, ns string, as who, address string) (c net.Conn, err error) {
	t.Helper()
	in(t, ns, as, func() error {
		if c, err = net.DialTimeout("tcp", address, patience); err == nil {
			_ = c.SetDeadline(time.Now().Add(patience))
		}
		return nil
	})
	return c, err
}

// talk sends what it is given, and returns all that comes, or what failed.
func (w *world) talk(t *testing.T, address, say string) string {
	t.Helper()
	c, err := w.dial(t, w.app, application, address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_, _ = io.WriteString(c, say)
	_ = c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil {
		return fmt.Sprintf("%s %v", got, err)
	}
	return strings.TrimSpace(string(got))
}

// serveDatabase greets first, as MySQL does, and answers one line.
func (w *world) serveDatabase(t *testing.T, ns, name, address string) {
	w.serve(t, ns, address, func(c net.Conn) {
		_, _ = fmt.Fprintf(c, "greeting of %s\n", name)
		if query, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			_, _ = fmt.Fprintf(c, "%s ran %s", name, query)
		}
	})
}

// query waits for the greeting, before it says a thing.
func (w *world) query(t *testing.T, address string) string {
	t.Helper()
	c, err := w.dial(t, w.app, application, address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	r := bufio.NewReader(c)
	greeting, err := r.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	_, _ = io.WriteString(c, "select 1\n")
	answer, err := r.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(greeting) + ", " + strings.TrimSpace(answer)
}

// serveTLS answers by a certificate of its own.
func (w *world) serveTLS(t *testing.T, ns, name, address string) {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{mesh.SelfSigned(t, name)}}
	w.serve(t, ns, address, func(c net.Conn) { _, _ = fmt.Fprintln(tls.Server(c, config), name) })
}

// secure says who answers by TLS, and by whose certificate.
func (w *world) secure(t *testing.T, address, serverName string) string {
	t.Helper()
	raw, err := w.dial(t, w.app, application, address)
	if err != nil {
		return err.Error()
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{ServerName: serverName, InsecureSkipVerify: true})
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line) + " by the certificate of " + c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// serveChat speaks HTTP, and after an upgrade says everything twice.
func (w *world) serveChat(t *testing.T, ns, address string) {
	w.serve(t, ns, address, func(c net.Conn) {
		r := bufio.NewReader(c)
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if q.Header.Get("Upgrade") != "websocket" {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nchat")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "%s %s", strings.TrimSpace(line), line)
		}
	})
}

// chat upgrades and says a word.
func (w *world) chat(t *testing.T, address, host string) string {
	t.Helper()
	c, err := w.dial(t, w.app, application, address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_, _ = fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
	r := bufio.NewReader(c)
	a, err := http.ReadResponse(r, nil)
	if err != nil {
		return err.Error()
	}
	if a.StatusCode != http.StatusSwitchingProtocols {
		return a.Status
	}
	_, _ = io.WriteString(c, "hello\n")
	line, err := r.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

func (w *world) serveGRPC(t *testing.T, ns, address string) {
	t.Helper()
	var l net.Listener
	in(t, ns, who{}, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
}

func (w *world) call(t *testing.T, address, authority string) string {
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithAuthority(authority), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(_ context.Context, address string) (net.Conn, error) {
			return w.dial(t, w.app, application, address)
		}))
	if err != nil {
		return err.Error()
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err.Error()
	}
	return a.GetStatus().String()
}

const streamServices = `
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: db}
spec: {ports: [{port: 3306, protocol: tcp}]}
---
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: cache}
spec: {ports: [{port: 3306, protocol: tcp}]}
---
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: vault}
spec: {ports: [{port: 8443, protocol: tls}]}
---
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: vault-eu}
spec: {ports: [{port: 8443, protocol: tls}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: vault}
spec:
  parentRefs: [{kind: Service, name: vault}]
  hostnames: [eu.vault.example]
  rules: [{backendRefs: [{kind: Service, name: vault-eu}]}]
`

// meshOfStreams starts, in the peer's namespace, a control plane and each service with
// its sidecar, and a sidecar without services in the application's.
func (w *world) meshOfStreams(t *testing.T) {
	t.Helper()
	config := folder(t, theSidecar)
	if err := os.WriteFile(filepath.Join(config, "services.yaml"), []byte(streamServices), 0o644); err != nil {
		t.Fatal(err)
	}
	w.start(t, w.peer, theSidecar, controlPlaneBinary, "serve", "--data", folder(t, theSidecar), "--config", config,
		"--http", peerV4+":15014", "--xds", peerV4+":15010", "--insecure", "--insecure-xds")
	for i, service := range []string{"chat", "greeter", "db", "cache", "vault", "vault-eu"} {
		app := fmt.Sprintf("127.0.0.1:%d", 8080+i)
		switch service {
		case "chat":
			w.serveChat(t, w.peer, app)
		case "greeter":
			w.serveGRPC(t, w.peer, app)
		case "db", "cache":
			w.serveDatabase(t, w.peer, service, app)
		default:
			w.serveTLS(t, w.peer, service, app)
		}
		port := func(base int) string { return fmt.Sprint(base + 100*i) }
		w.start(t, w.peer, theSidecar, sidecarBinary, "--service", service, "--id", service+"-1", "--app", app,
			"--controlplane", peerV4+":15010", "--insecure-xds", "--data", folder(t, theSidecar), "--concurrency", "1",
			"--inbound", peerV4+":"+port(16006), "--outbound", "127.0.0.1:"+port(16001), "--admin", "127.0.0.1:"+port(16000))
	}
	w.start(t, w.app, theSidecar, sidecarBinary, "--service", "shop", "--id", "shop-1",
		"--controlplane", peerV4+":15010", "--insecure-xds", "--data", folder(t, theSidecar), "--concurrency", "1", "--dns", "127.0.0.1:15053")
}

// TestEveryProtocolOfAnInterceptedApplicationFindsItsDestination: the application knows
// names only. Nothing is asked of it: it resolves, connects, and speaks, or waits for
// the server to.
func TestEveryProtocolOfAnInterceptedApplicationFindsItsDestination(t *testing.T) {
	t.Parallel()
	eachTool(t, func(t *testing.T, w *world, tool string) {
		w.meshOfStreams(t)
		w.intercept(t, "--tool", tool, "--dns", "127.0.0.1:15053")
		at := map[string]netip.Addr{}
		of := func(name string, port int) string {
			t.Helper()
			await(t, "a virtual address for "+name, "true", func() string {
				if !at[name].IsValid() {
					at[name] = w.resolve(t, w.app, application, peerV4+":53", name)
				}
				return fmt.Sprint(at[name].IsValid())
			})
			return netip.AddrPortFrom(at[name], uint16(port)).String()
		}
		for _, c := range []struct {
			name, want string
			ask        func() string
		}{
			{"HTTP", "200 chat", func() string { return w.get(t, w.app, application, of("chat", 80), "chat") }},
			{"WebSocket", "hello hello", func() string { return w.chat(t, of("chat", 80), "chat") }},
			{"gRPC", "SERVING", func() string { return w.call(t, of("greeter", 50051), "greeter") }},
			{"a server that speaks first", "greeting of db, db ran select 1", func() string { return w.query(t, of("db", 3306)) }},
			{"another at the same port", "greeting of cache, cache ran select 1", func() string { return w.query(t, of("cache.mesh", 3306)) }},
			{"TLS that passes through", "vault by the certificate of vault", func() string { return w.secure(t, of("vault", 8443), "vault") }},
			{"TLS by a route's server name", "vault-eu by the certificate of vault-eu", func() string { return w.secure(t, of("vault", 8443), "eu.vault.example") }},
			{"TLS by server name to any address", "vault-eu by the certificate of vault-eu", func() string { return w.secure(t, "203.0.113.9:8443", "eu.vault.example") }},
		} {
			await(t, c.name, c.want, c.ask)
		}
		// What is no destination of connections is a request, and one of nobody.
		for name, address := range map[string]string{
			"an address of nobody at a database's port":     "203.0.113.9:3306",
			"a service of requests at a database's port":    of("chat", 3306),
			"a database's address at a port that it lacks":  of("db", 3307),
			"a database's address at the port of TLS":       of("db", 8443),
			"a metadata service at a database's port":       "169.254.169.254:3306",
			"a virtual address that no name has been given": "240.240.255.254:3306",
		} {
			if got := w.talk(t, address, "GET / HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 404") {
				t.Errorf("%s: %q, want 404 of the sidecar", name, got)
			}
		}
		w.intercept(t, "--remove")
		if after := w.ruleset(t); strings.Contains(strings.ToLower(after), "outrigger") {
			t.Errorf("left behind:\n%s", after)
		}
	})
}
