// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// routeLimit bounds one exchange on a busy machine.
const routeLimit = 30 * time.Second

// serveConns serves every connection of a listener until the test ends.
func serveConns(t *testing.T, serve func(net.Conn)) string {
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
			go func() {
				defer c.Close() //nolint:errcheck // the peer sees the end
				_ = c.SetDeadline(time.Now().Add(routeLimit))
				serve(c)
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

// beside starts a sidecar beside an application that is there, and waits until both are known.
func beside(m *mesh.Mesh, t *testing.T, service, id, app string, flags ...string) *mesh.Sidecar {
	t.Helper()
	s := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{Service: service, ID: id, App: app, XDS: m.ControlPlane.XDS, Flags: flags})
	s.AwaitReady()
	m.AwaitInstance(service, id, true)
	return s
}

// grpcApp is a gRPC server that tells its name, and what metadata came, in a header.
func grpcApp(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tell := func(ctx context.Context) context.Context {
		in, _ := metadata.FromIncomingContext(ctx)
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-app", name, "x-came", strings.Join(in.Get("x-route"), ",")))
		return ctx
	}
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			return h(tell(ctx), req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			tell(ss.Context())
			return h(srv, ss)
		}))
	healthpb.RegisterHealthServer(s, health.NewServer())
	go s.Serve(l) //nolint:errcheck // stopped below
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func TestMethodsOfGRPCGoWhereTheirRouteSays(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	beside(m, t, "greeter", "greeter-1", grpcApp(t, "v1"))
	beside(m, t, "greeter-v2", "greeter-2", grpcApp(t, "v2"))
	m.ControlPlane.PutYAML("GRPCRoute", "greeter", `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: greeter}
spec:
  parentRefs: [{kind: Service, name: greeter}]
  rules:
  - matches: [{method: {service: grpc.health.v1.Health, method: Watch}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-route, value: watch}]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: the mesh}]}}
    backendRefs: [{kind: Service, name: greeter-v2}]
  - matches: [{method: {service: grpc.health.v1.Health}, headers: [{name: x-split, value: even}]}]
    backendRefs: [{kind: Service, name: greeter}, {kind: Service, name: greeter-v2}]
  - backendRefs: [{kind: Service, name: greeter}]
    retry: {attempts: 2, codes: [unavailable]}
`)
	caller := m.Caller("caller")
	cc, err := grpc.NewClient("passthrough:///"+caller.Outbound, grpc.WithAuthority("greeter"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close() //nolint:errcheck // nothing is left to say
	client := healthpb.NewHealthClient(cc)
	check := func(md ...string) (string, error) {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), md...), routeLimit)
		defer cancel()
		var head metadata.MD
		_, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Header(&head))
		return strings.Join(head.Get("x-app"), ","), err
	}
	watch := func() (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), routeLimit)
		defer cancel()
		stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			return "", err
		}
		if _, err := stream.Recv(); err != nil {
			return "", err
		}
		head, err := stream.Header()
		return fmt.Sprint(head.Get("x-app"), head.Get("x-came"), head.Get("x-by")), err
	}
	caller.Await(routeLimit, "the method's route", func() error {
		switch got, err := watch(); {
		case err != nil:
			return err
		case got != "[v2] [watch] [the mesh]":
			return errors.New(got)
		}
		return nil
	})
	for range 20 {
		if got, err := check(); err != nil || got != "v1" {
			t.Errorf("another method: %q %v, want v1", got, err)
		}
	}
	seen := map[string]int{}
	for range 100 {
		got, err := check("x-split", "even")
		if err != nil {
			t.Fatal(err)
		}
		seen[got]++
	}
	if seen["v1"] < 20 || seen["v2"] < 20 {
		t.Errorf("weights of 1 and 1: %v", seen)
	}
	for want, args := range map[string][]string{
		"GRPCRoute/greeter/0/0": {"POST", "http://greeter/grpc.health.v1.Health/Watch"},
		"GRPCRoute/greeter/2/0": {"POST", "http://greeter/other.Service/Method"},
	} {
		if f := m.ControlPlane.CLI("", append([]string{"explain"}, args...)...); f.Code != 0 || !strings.Contains(f.Output, want) {
			t.Errorf("explain %v: %d\n%s\nwant %s", args, f.Code, f.Output, want)
		}
	}
	if f := m.ControlPlane.CLI("", "get", "grpcroutes", "greeter", "-o", "yaml"); f.Code != 0 || !strings.Contains(f.Output, "kind: GRPCRoute") {
		t.Errorf("get: %d\n%s", f.Code, f.Output)
	}
	if f := m.ControlPlane.CLI("", "delete", "grpcroute", "greeter"); f.Code != 0 {
		t.Errorf("delete: %d\n%s", f.Code, f.Output)
	}
	caller.Await(routeLimit, "the route is gone", func() error {
		if got, err := watch(); err != nil || got != "[v1] [] []" {
			return fmt.Errorf("%s %w", got, err)
		}
		return nil
	})
	if _, err := check("x-none", "1"); status.Code(err) != codes.OK {
		t.Error(err)
	}
}

const tcpServices = `apiVersion: outrigger.io/v1
kind: Service
metadata: {name: %s}
spec: {ports: [{port: %d, protocol: %s}]}
`

// line reads one.
func line(r *bufio.Reader) (string, error) {
	s, err := r.ReadString('\n')
	return strings.TrimSpace(s), err
}

// TestConnectionsGoThroughBothSidecars: a client that speaks first and a server that does,
// with either side ending its half first, by a listener of their own and by CONNECT.
func TestConnectionsGoThroughBothSidecars(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	m.ControlPlane.PutYAML("Service", "db", fmt.Sprintf(tcpServices, "db", 5432, "tcp"))
	m.ControlPlane.PutYAML("Service", "mail", fmt.Sprintf(tcpServices, "mail", 25, "tcp"))
	// It answers with what came, when all has come.
	beside(m, t, "db", "db-1", serveConns(t, func(c net.Conn) {
		all, _ := io.ReadAll(c)
		fmt.Fprintf(c, "db has %s\n", all) //nolint:errcheck // the client sees what came
	}))
	// It greets, and ends its own half before it listens.
	heard := make(chan string, 8)
	beside(m, t, "mail", "mail-1", serveConns(t, func(c net.Conn) {
		fmt.Fprintln(c, "220 mail") //nolint:errcheck // the client sees what came
		_ = c.(*net.TCPConn).CloseWrite()
		if all, _ := io.ReadAll(c); len(all) > 0 { // the check of its health says nothing
			heard <- string(all)
		}
	}))
	db, mail := mesh.FreeAddress(t), mesh.FreeAddress(t)
	caller := m.Caller("caller", "--tcp-outbound", db+"=db:5432", "--tcp-outbound", mail+"=mail:25")

	dial := func(how, address, authority string) (net.Conn, *bufio.Reader) {
		t.Helper()
		var c net.Conn
		caller.Await(routeLimit, how, func() (err error) {
			if c, err = net.Dial("tcp", address); err != nil {
				return err
			}
			_ = c.SetDeadline(time.Now().Add(routeLimit))
			return nil
		})
		t.Cleanup(func() { _ = c.Close() })
		r := bufio.NewReader(c)
		if authority == "" {
			return c, r
		}
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority) //nolint:errcheck // the answer tells
		a, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
		if err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("CONNECT %s: %v %v", authority, a, err)
		}
		return c, r
	}
	for _, way := range []struct{ name, db, mail, dbHost, mailHost string }{
		{"a listener of its own", db, mail, "", ""},
		{"CONNECT", caller.Outbound, caller.Outbound, "db:5432", "mail.mesh:25"},
	} {
		c, r := dial(way.name, way.db, way.dbHost)
		if _, err := io.WriteString(c, "a question"); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if got, err := line(r); err != nil || got != "db has a question" {
			t.Errorf("%s: the client speaks first: %q %v", way.name, got, err)
		}
		c, r = dial(way.name, way.mail, way.mailHost)
		if got, err := line(r); err != nil || got != "220 mail" {
			t.Errorf("%s: the server speaks first: %q %v", way.name, got, err)
		}
		if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
			t.Errorf("%s: the server's half should have ended: %q %v", way.name, rest, err)
		}
		if _, err := io.WriteString(c, "quit"); err != nil {
			t.Errorf("%s: the client's half should be open: %v", way.name, err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		select {
		case got := <-heard:
			if got != "quit" {
				t.Errorf("%s: behind its end the server heard %q, want quit", way.name, got)
			}
		case <-time.After(routeLimit):
			t.Fatalf("%s: the server heard nothing behind its end", way.name)
		}
	}
	if a, err := mesh.Do(http.MethodGet, "http://"+caller.Outbound+"/", "", ""); err != nil || a.Status != http.StatusNotFound {
		t.Errorf("no service: %d %v", a.Status, err)
	}
	if f := m.ControlPlane.CLI("", "explain", "CONNECT", "tcp://db:5432"); f.Code != 0 || !strings.Contains(f.Output, "db, the only instance") {
		t.Errorf("explain: %d\n%s", f.Code, f.Output)
	}
}

func TestConnectionsAreSplitByWeight(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	m.ControlPlane.PutYAML("Service", "db", fmt.Sprintf(tcpServices, "db", 5432, "tcp"))
	m.ControlPlane.PutYAML("Service", "db-v2", fmt.Sprintf(tcpServices, "db-v2", 5432, "tcp"))
	for _, name := range []string{"db", "db-v2"} {
		beside(m, t, name, name+"-1", serveConns(t, func(c net.Conn) { fmt.Fprintln(c, name) })) //nolint:errcheck // the client sees what came
	}
	m.ControlPlane.PutYAML("TCPRoute", "db", `apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: db}
spec:
  parentRefs: [{kind: Service, name: db}]
  rules: [{backendRefs: [{kind: Service, name: db, weight: 3}, {kind: Service, name: db-v2, weight: 1}]}]
`)
	address := mesh.FreeAddress(t)
	caller := m.Caller("caller", "--tcp-outbound", address+"=db:5432")
	ask := func() (string, error) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return "", err
		}
		defer c.Close() //nolint:errcheck // all was read
		_ = c.SetDeadline(time.Now().Add(routeLimit))
		return line(bufio.NewReader(c))
	}
	caller.Await(routeLimit, "the route", func() error {
		got, err := ask()
		if err == nil && got != "db-v2" {
			err = errors.New("only " + got)
		}
		return err
	})
	seen := map[string]int{}
	for range 200 {
		got, err := ask()
		if err != nil {
			t.Fatal(err)
		}
		seen[got]++
	}
	if seen["db"] < 100 || seen["db-v2"] < 20 {
		t.Errorf("weights of 3 and 1: %v", seen)
	}
}

// TestTLSGoesByServerNameUnopened: the certificates that clients see are the servers' own.
func TestTLSGoesByServerNameUnopened(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	for _, name := range []string{"vault", "vault-eu"} {
		m.ControlPlane.PutYAML("Service", name, fmt.Sprintf(tcpServices, name, 8443, "tls"))
		cert := mesh.SelfSigned(t, name)
		beside(m, t, name, name+"-1", serveConns(t, func(c net.Conn) {
			fmt.Fprintln(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}), name) //nolint:errcheck // the client sees what came
		}))
	}
	m.ControlPlane.PutYAML("TLSRoute", "vault", `apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: vault}
spec:
  parentRefs: [{kind: Service, name: vault}]
  hostnames: [eu.vault.example, "*.eu.vault.example"]
  rules: [{backendRefs: [{kind: Service, name: vault-eu}]}]
`)
	own := mesh.FreeAddress(t)
	caller := m.Caller("caller", "--tcp-outbound", own+"=vault:8443")
	ask := func(address, serverName string) (string, error) {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: routeLimit}, "tcp", address, &tls.Config{
			ServerName: serverName, InsecureSkipVerify: true, //nolint:gosec // the certificate's name is looked at below
		})
		if err != nil {
			return "", err
		}
		defer c.Close() //nolint:errcheck // all was read
		_ = c.SetDeadline(time.Now().Add(routeLimit))
		got, err := line(bufio.NewReader(c))
		return got + " by " + c.ConnectionState().PeerCertificates[0].Subject.CommonName, err
	}
	for _, c := range []struct{ address, serverName, want string }{
		{caller.Outbound, "vault", "vault by vault"},
		{caller.Outbound, "vault.mesh", "vault by vault"},
		{caller.Outbound, "eu.vault.example", "vault-eu by vault-eu"},
		{caller.Outbound, "a.EU.vault.example", "vault-eu by vault-eu"},
		{own, "a.eu.vault.example", "vault-eu by vault-eu"},
		{own, "anything", "vault by vault"},
	} {
		caller.Await(routeLimit, c.serverName, func() error {
			got, err := ask(c.address, c.serverName)
			if err == nil && got != c.want {
				err = fmt.Errorf("%q, want %q", got, c.want)
			}
			return err
		})
	}
	if got, err := ask(caller.Outbound, "nobody.example"); err == nil {
		t.Errorf("a name that nobody has: %q", got)
	}
	m.Instance("web", "web-1")
	m.AwaitAnswers(caller, "web", "web-1") // requests still go beside
}

// TestConnectionsBetweenSidecarsAreMutualTLS: what a database and its client say is TLS
// between their sidecars; nobody gets in without a certificate.
func TestConnectionsBetweenSidecarsAreMutualTLS(t *testing.T) {
	t.Parallel()
	m := newSecureMesh(t)
	m.ControlPlane.PutYAML("Service", "db", fmt.Sprintf(tcpServices, "db", 5432, "tcp"))
	beside := m.sidecar("db", "db-1", serveConns(t, func(c net.Conn) { fmt.Fprintln(c, "greeting") })) //nolint:errcheck // the client sees what came
	address := mesh.FreeAddress(t)
	web := m.sidecar("web", "web-1", "", "--tcp-outbound", address+"=db:5432")
	ask := func(address string) (string, error) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return "", err
		}
		defer c.Close() //nolint:errcheck // all was read
		_ = c.SetDeadline(time.Now().Add(routeLimit))
		return line(bufio.NewReader(c))
	}
	web.Await(routeLimit, "the greeting", func() error {
		if got, err := ask(address); err != nil || got != "greeting" {
			return fmt.Errorf("%q %w", got, err)
		}
		return nil
	})
	c, err := net.Dial("tcp", beside.Inbound)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // all was read
	_ = c.SetDeadline(time.Now().Add(routeLimit))
	if _, err := io.WriteString(c, "select 1\n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(c); strings.Contains(string(got), "greeting") {
		t.Errorf("in the clear: %q", got)
	}
	beside.AwaitStat("outrigger.tls.failed_not_tls_total", func(n int) bool { return n == 1 })
}
