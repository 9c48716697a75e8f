// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// tappedConnection is a row of the lake.
type tappedConnection struct {
	Service, Tap, Direction, Protocol, Flags, Cluster, Upstream, Remote, Local, Peer, ALPN string

	ConnectionID      uint64 `json:"connection_id"`
	DurationMicros    int64  `json:"duration_us"`
	ServerName        string `json:"server_name"`
	RequestBody       string `json:"request_body"`
	RequestBody64     []byte `json:"request_body_base64"`
	ResponseBody      string `json:"response_body"`
	RequestBytes      int    `json:"request_bytes"`
	ResponseBytes     int    `json:"response_bytes"`
	RequestTruncated  bool   `json:"request_truncated"`
	ResponseTruncated bool   `json:"response_truncated"`
	Redacted          int
}

// awaitTapped waits for a tap's only row in the lake.
func awaitTapped(m *secureMesh, tap string) (row tappedConnection) {
	m.t.Helper()
	m.ControlPlane.Await(routeLimit, "the record of "+tap+" in the lake", func() error {
		f := mesh.Run(m.t, "", mesh.Program("controlplane"), "lake", "cat", "--lake", filepath.Join(m.ControlPlane.Data, "lake"))
		if f.Code != 0 {
			return errors.New(f.Output)
		}
		found := 0
		for line := range strings.Lines(f.Output) {
			var r tappedConnection
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return fmt.Errorf("%w: %s", err, line)
			}
			if r.Tap == tap {
				row, found = r, found+1
			}
		}
		if found > 1 {
			m.t.Fatalf("%d records of %s, want one for the connection", found, tap)
		}
		if found == 0 {
			return errors.New(f.Output)
		}
		return nil
	})
	return row
}

// TestTappedConnectionsAreInTheLake: of what goes as TCP through two sidecars the lake has
// who, where, how much, and the first bytes without secrets; of TLS that nobody opens, the
// server name. What a tap cannot do with connections is refused by name.
func TestTappedConnectionsAreInTheLake(t *testing.T) {
	t.Parallel()
	m := newSecureMesh(t, "--lake-interval", "300ms")
	m.ControlPlane.PutYAML("Service", "db", fmt.Sprintf(tcpServices, "db", 5432, "tcp"))
	m.ControlPlane.PutYAML("Service", "vault", fmt.Sprintf(tcpServices, "vault", 8443, "tls"))
	const object = "apiVersion: outrigger.io/v1\nkind: Tap\nmetadata: {name: %s}\nspec:\n  targetRef: {kind: Service, name: %s}\n  expires: 1h\n%s\n"
	m.apply(fmt.Sprintf(object, "db-bytes", "db", `
  match: {peers: ["spiffe://*"], sample: 100%}
  capture: {requestBody: 1KiB, responseBody: 2KiB}
  redact: {patterns: [payment-card]}`))
	m.apply(fmt.Sprintf(object, "db-strangers", "db", `  match: {peers: ["spiffe://elsewhere/*"]}`))
	m.apply(fmt.Sprintf(object, "vault-name", "vault", `
  match: {serverNames: ["*.example.com"]}
  capture: {requestBody: 3}`))
	m.apply(fmt.Sprintf(object, "vault-other", "vault", `  match: {serverNames: [other.example.com]}`))
	for field, spec := range map[string]string{
		"spec.match.method":     "  match: {method: GET}",
		"spec.redact.jsonPaths": "  capture: {requestBody: 1KiB}\n  redact: {jsonPaths: [$.card]}",
	} {
		if f := m.ControlPlane.CLI(fmt.Sprintf(object, "no", "db", spec), "apply", "-f", "-"); f.Code == 0 || !strings.Contains(f.Output, field) {
			t.Errorf("a tap of connections with %s: %d\n%s", field, f.Code, f.Output)
		}
	}

	const asked = "pay 4111 1111 1111 1111 for 7\npassword=hunter2\nnow\n"
	answer := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16) // 1 MiB
	db := serveConns(t, func(c net.Conn) {
		if all, _ := io.ReadAll(c); len(all) > 0 { // the check of its health says nothing
			_, _ = c.Write(answer)
		}
	})
	cert := mesh.SelfSigned(t, "vault.example.com")
	vault := serveConns(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"vault/1"}})
		_, _ = io.Copy(s, s)
		_ = s.Close()
	})
	m.sidecar("db", "db-1", db)
	m.sidecar("vault", "vault-1", vault)
	dbAt, vaultAt := mesh.FreeAddress(t), mesh.FreeAddress(t)
	web := m.sidecar("web", "web-1", "", "--tcp-outbound", dbAt+"=db:5432", "--tcp-outbound", vaultAt+"=vault:8443")

	web.Await(routeLimit, "an answer of db", func() error {
		c, err := net.Dial("tcp", dbAt)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // all was read
		_ = c.SetDeadline(time.Now().Add(routeLimit))
		if _, err = io.WriteString(c, asked); err != nil {
			return err
		}
		_ = c.(*net.TCPConn).CloseWrite()
		if all, err := io.ReadAll(c); err != nil || !bytes.Equal(all, answer) {
			return fmt.Errorf("%d bytes, or others: %w", len(all), err)
		}
		return nil
	})
	got := awaitTapped(m, "db-bytes")
	if got.Service != "db" || got.Direction != "inbound" || got.Protocol != "TCP" || got.Cluster != "inbound|db" || got.Upstream != db ||
		got.Remote == "" || got.Local == "" || got.ConnectionID == 0 || got.DurationMicros <= 0 || got.Flags != "" ||
		!strings.HasPrefix(got.Peer, "spiffe://") || !strings.HasSuffix(got.Peer, "/web") {
		t.Errorf("got %+v", got)
	}
	if want := "pay [redacted] for 7\npassword=[redacted]\nnow\n"; got.RequestBody != want || got.RequestBytes != len(asked) || got.RequestTruncated || got.Redacted < 2 {
		t.Errorf("of the client: %q of %d bytes, truncated %v, %d hidden; want %q", got.RequestBody, got.RequestBytes, got.RequestTruncated, got.Redacted, want)
	}
	hidden := got.Redacted
	// A card that the limit may have cut is not sent: the end is held back.
	if n := len(got.ResponseBody); n < 1900 || n > 2048 || !bytes.HasPrefix(answer, []byte(got.ResponseBody)) || got.ResponseBytes != len(answer) || !got.ResponseTruncated {
		t.Errorf("of the server: %d bytes of %d, truncated %v: %q", n, got.ResponseBytes, got.ResponseTruncated, got.ResponseBody)
	}

	web.Await(routeLimit, "an answer of vault", func() error {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: routeLimit}, "tcp", vaultAt, &tls.Config{ //nolint:gosec // the name is looked at
			ServerName: "Vault.example.com", NextProtos: []string{"vault/1"}, InsecureSkipVerify: true,
		})
		if err != nil {
			return err
		}
		return c.Close()
	})
	got = awaitTapped(m, "vault-name")
	if got.ServerName != "vault.example.com" || got.ALPN != "vault/1" || !strings.HasSuffix(got.Peer, "/web") || string(got.RequestBody64)+got.RequestBody != "\x16\x03\x01" || !got.RequestTruncated {
		t.Errorf("got %+v", got)
	}
	// Nothing of the other taps: what comes last, in order, is in the lake.
	f := mesh.Run(t, "", mesh.Program("controlplane"), "lake", "cat", "--lake", filepath.Join(m.ControlPlane.Data, "lake"))
	if strings.Contains(f.Output, "db-strangers") || strings.Contains(f.Output, "vault-other") || strings.Contains(f.Output, "hunter2") || strings.Contains(f.Output, "4111 1111") {
		t.Errorf("the lake has what it must not:\n%s", f.Output)
	}
	mesh.Conformance(t, "tcp-tap", "2 connections tapped of %d and %d bytes, 2 taps for other peers and names took none, %d values hidden", len(asked)+len(answer), got.RequestBytes+got.ResponseBytes, hidden)
}
