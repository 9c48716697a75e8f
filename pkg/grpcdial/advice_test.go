// SPDX-License-Identifier: Apache-2.0

package grpcdial_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
)

func TestAnHTTPPortIsNamedWithThePortThatIsMeant(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	target := strings.TrimPrefix(server.URL, "http://")
	conn, err := grpcdial.Dial(grpcdial.Config{Target: target})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := healthgrpc.NewHealthClient(conn)
	_, unary := client.Check(ctx, &healthgrpc.HealthCheckRequest{})
	_, stream := client.Watch(ctx, &healthgrpc.HealthCheckRequest{})
	for name, err := range map[string]error{"unary": unary, "stream": stream} {
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), target+" is an HTTP port") || !strings.Contains(err.Error(), "--xds (15010") {
			t.Errorf("%s: got %v, want the port, and the one that is meant", name, err)
		}
	}
}

func TestAConnectionThatFailsIsToldWithWhatToDo(t *testing.T) {
	quiet := func(s *httptest.Server) *httptest.Server {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		return s
	}
	encrypted := quiet(httptest.NewUnstartedServer(http.NotFoundHandler()))
	encrypted.EnableHTTP2 = true
	encrypted.StartTLS()
	defer encrypted.Close()
	closing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closing.Close()
	go func() { // plaintext to a TLS port ends without an answer
		for {
			c, err := closing.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1<<10))
			_ = c.Close()
		}
	}()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	go func() { _ = server.Serve(plain) }() // until it is stopped
	defer server.Stop()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	roots := &tls.Config{RootCAs: x509.NewCertPool()}
	for _, c := range []struct {
		name, target string
		tls          *tls.Config
		want         string
	}{
		{"nobody listens", nobody.Addr().String(), nil, nobody.Addr().String() + " cannot be reached: dial tcp " + nobody.Addr().String() + ": connect: connection refused (nothing listens there: is the control plane running"},
		{"plaintext to a TLS port", closing.Addr().String(), nil, "add --trust-bundle, or use the plaintext port (15010)"},
		{"TLS to a plaintext port", plain.Addr().String(), roots, plain.Addr().String() + " is a plaintext port; mutual TLS is on that of serve --xds-mtls (15012"},
		{"other roots", encrypted.Listener.Addr().String(), roots, "fetch them anew: controlplane ca bundle"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := grpcdial.Dial(grpcdial.Config{Target: c.target, TLS: c.tls})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close() //nolint:errcheck // nothing was written
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			client := healthgrpc.NewHealthClient(conn)
			_, err = client.Check(ctx, &healthgrpc.HealthCheckRequest{})
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
