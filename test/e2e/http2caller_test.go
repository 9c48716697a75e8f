// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// http2Caller is an application that speaks HTTP/2 to its sidecar.
type http2Caller struct {
	t      *testing.T
	web    *mesh.Sidecar
	client *http.Client
}

func newHTTP2Caller(t *testing.T, web *mesh.Sidecar) *http2Caller {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http2Caller{t: t, web: web, client: &http.Client{Transport: tr, Timeout: 30 * time.Second}}
}

// call sends one GET; an answer other than 200 by HTTP/2 is an error.
func (c *http2Caller) call(host string) (mesh.Answer, error) {
	q, err := http.NewRequest(http.MethodGet, "http://"+c.web.Outbound+"/", nil)
	if err != nil {
		return mesh.Answer{}, err
	}
	q.Host = host
	a, err := c.client.Do(q)
	if err != nil {
		return mesh.Answer{}, err
	}
	defer a.Body.Close() //nolint:errcheck // read to its end below
	b, err := io.ReadAll(a.Body)
	if err == nil && (a.StatusCode != http.StatusOK || a.ProtoMajor != 2) {
		err = fmt.Errorf("answered %s over %s: %q", a.Status, a.Proto, b)
	}
	return mesh.Answer{Status: a.StatusCode, Header: a.Header, Body: string(b)}, err
}

// calls sends 30 and returns how many each instance has answered. None may fail.
func (c *http2Caller) calls(host string) map[string]int {
	c.t.Helper()
	by := map[string]int{}
	for range 30 {
		a, err := c.call(host)
		if err != nil {
			c.t.Fatal(err)
		}
		by[a.Header.Get(mesh.InstanceHeader)]++
	}
	return by
}

// An application that knows HTTP/1.1 alone is called by clients that speak HTTP/2.
func TestACallerOfHTTP2ReachesAnApplicationOfHTTP1(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	m.Instance("orders", "orders-1") // its server takes no HTTP/2 in the clear
	web := m.Caller("web-1")
	m.AwaitAnswers(web, "orders", "orders-1")
	newHTTP2Caller(t, web).calls("orders")
}

// So is one that has no sidecar, also beside others that have one: sidecars speak
// HTTP/2 with each other all the same.
func TestACallerOfHTTP2ReachesInstancesWithoutASidecar(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	m.ControlPlane.PutInstance("orders", "orders-1", mesh.StartApp(t, m.Dir, "orders-1").Address)
	web := m.Caller("web-1")
	m.AwaitAnswers(web, "orders", "orders-1")
	c := newHTTP2Caller(t, web)
	c.calls("orders")

	beside := m.Instance("orders", "orders-2").Sidecar
	m.AwaitAnswers(web, "orders", "orders-1", "orders-2")
	if by := c.calls("orders"); by["orders-1"] == 0 || by["orders-2"] == 0 {
		t.Errorf("answered by %v", by)
	}
	beside.AwaitStat("http.inbound.downstream_cx_http2_total", func(n int) bool { return n > 0 })
}

// serveApart serves until the end of the test and returns the address.
func serveApart(t *testing.T, serve func(net.Listener) error, stop func()) string {
	t.Helper()
	l, err := net.Listen("tcp", mesh.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// A server of gRPC needs neither a sidecar nor a declaration.
func TestACallOfGRPCReachesAServerWithoutASidecar(t *testing.T) {
	t.Parallel()
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	m := mesh.New(t)
	m.ControlPlane.PutInstance("greeter", "greeter-1", serveApart(t, server.Serve, server.Stop))
	web := m.Caller("web-1")
	cc, err := grpc.NewClient("passthrough:///"+web.Outbound, grpc.WithAuthority("greeter"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close() //nolint:errcheck // nothing is under way
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := testgrpc.NewTestServiceClient(cc)
	web.Await(20*time.Second, "the service is routed to", func() error {
		_, err := client.EmptyCall(ctx, &testgrpc.Empty{})
		return err
	})
	interop.DoLargeUnaryCall(ctx, client)
	interop.DoPingPong(ctx, client)
}

// What is declared to speak HTTP/2 is spoken to by it: a service by its port, an
// instance by its registration.
func TestAServerOfHTTP2AloneIsDeclared(t *testing.T) {
	t.Parallel()
	apart := func() string {
		s := &http.Server{ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		s.Protocols.SetUnencryptedHTTP2(true)
		return serveApart(t, s.Serve, func() { _ = s.Close() })
	}
	m := mesh.New(t)
	m.ControlPlane.PutInstance("ledger", "ledger-1", apart(), `"protocol":"http2"`)
	m.ControlPlane.PutInstance("vault", "vault-1", apart())
	m.ControlPlane.PutYAML("Service", "vault", `apiVersion: outrigger.io/v1
kind: Service
metadata: {name: vault}
spec: {ports: [{port: 80, protocol: http2}]}
`)
	c := newHTTP2Caller(t, m.Caller("web-1"))
	for _, service := range []string{"ledger", "vault"} {
		c.web.Await(20*time.Second, service+" is routed to", func() error {
			_, err := c.call(service)
			return err
		})
		c.calls(service)
	}
}
