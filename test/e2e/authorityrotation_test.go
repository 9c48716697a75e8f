// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// rotationsEnv is how many times certificates are renewed, for longer runs.
const rotationsEnv = "OUTRIGGER_ROTATIONS"

// TestMutualTLSRotatesUnderLoad: certificates live for seconds and are renewed time
// and again, the authority rolls over and the control plane is killed, all under load
// over mutual TLS. No request fails, new handshakes use the new certificate, and
// connections that are open go on.
func TestMutualTLSRotatesUnderLoad(t *testing.T) {
	t.Parallel() // it mostly waits for certificates to grow old
	rotations := 3
	if s := os.Getenv(rotationsEnv); s != "" {
		if _, err := fmt.Sscan(s, &rotations); err != nil {
			t.Fatal(err)
		}
	}
	m := newSecureMesh(t, "--cert-life", "12s")
	app := mesh.StartApp(t, m.Dir, "orders-1")
	beside := m.sidecar(orders, "orders-1", app.Address)
	web := m.sidecar("web", "web-1", "")
	m.AwaitAnswers(web, orders, "orders-1")
	steady := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Conns: 8, Rate: 100})
	steady.AwaitSent(20)
	// More requests at a time than ever before need connections that are new.
	bursts, conns := mesh.Tally{}, 8
	burst := func() {
		t.Helper()
		conns += 8
		load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Path: "/?ms=200", Conns: conns, Rate: 5 * conns})
		load.AwaitSent(2 * conns)
		tally := load.Stop()
		tally.Flawless(t, "on connections made after a rotation")
		bursts.Sent, bursts.Failed = bursts.Sent+tally.Sent, bursts.Failed+tally.Failed
	}

	renewed := 0
	await := func(s *mesh.Sidecar, what string, holds func(own certificate, roots int) bool) (serial string) {
		t.Helper()
		s.Await(time.Minute, s.ID+": "+what, func() error {
			own, n, err := identityOf(s)
			if err != nil {
				return err
			}
			serial = own.Serial
			if !holds(own, n) {
				return fmt.Errorf("serial %s, %d roots", own.Serial, n)
			}
			return nil
		})
		return serial
	}
	// served is the serial that an inbound listener shows to a new handshake.
	served := func(want string) {
		t.Helper()
		beside.Await(30*time.Second, "new handshakes use the new certificate "+want, func() error {
			if got := shownSerial(beside.Inbound); got != want {
				return fmt.Errorf("%s is shown", got)
			}
			return nil
		})
	}
	renew := func() {
		both, before := []*mesh.Sidecar{beside, web}, [2]string{}
		for i, s := range both {
			before[i] = await(s, "has an identity", func(certificate, int) bool { return true })
		}
		for i, s := range both {
			serial := await(s, "renews", func(own certificate, _ int) bool { return own.Serial != before[i] })
			if s == beside {
				served(serial)
			}
			renewed++
		}
		burst()
	}
	for range rotations {
		renew()
	}
	m.ca("rotate")
	for _, s := range []*mesh.Sidecar{beside, web} {
		await(s, "knows the new root", func(_ certificate, n int) bool { return n == 2 })
	}
	m.ControlPlane.Kill()
	steady.AwaitSent(50)
	m.ControlPlane.Restart()
	renew()
	for _, s := range []*mesh.Sidecar{beside, web} {
		await(s, "has forgotten the old root", func(_ certificate, n int) bool { return n == 1 })
	}
	renew()
	steady.AwaitSent(20)
	tally := steady.Stop()
	tally.Flawless(t, "while identities were rotated, on connections that stay open")
	stats, err := web.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range stats {
		if strings.HasPrefix(name, "outrigger.tls.failed_") && n != 0 {
			t.Errorf("%s is %d", name, n)
		}
	}
	if n := stats["outrigger.tls.handshakes_done_total"]; n < conns {
		t.Errorf("%d handshakes: too few to have met every certificate", n)
	}
	noKeyOnDisk(t, beside, web)
	mesh.Conformance(t, "D16", "%d requests over mutual TLS, %d failed; %d certificates renewed, a root rolled over, the control plane killed; %d handshakes",
		tally.Sent+bursts.Sent, tally.Failed+bursts.Failed, renewed, stats["outrigger.tls.handshakes_done_total"])
}

// shownSerial is that of the certificate which a listener shows, in upper-case
// hexadecimal as /certs has it.
func shownSerial(address string) (serial string) {
	conf := &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error { //nolint:gosec // only looked at
		c, err := x509.ParseCertificate(raw[0])
		if err == nil {
			serial = c.SerialNumber.Text(16)
		}
		return err
	}}
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, conf)
	if err != nil {
		return err.Error()
	}
	_ = c.Close() // nothing is under way
	return serial
}

// noKeyOnDisk fails where anything of a key is in a folder, a log or a dump.
func noKeyOnDisk(t *testing.T, sidecars ...*mesh.Sidecar) {
	t.Helper()
	for _, s := range sidecars {
		for _, path := range []string{s.Data, s.Data + ".log"} {
			err := filepath.WalkDir(path, func(file string, d os.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				content, err := os.ReadFile(file)
				if strings.Contains(string(content), "PRIVATE KEY") {
					t.Errorf("%s holds a private key", file)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		for _, path := range []string{"/config_dump", "/agent"} {
			dump, err := mesh.Get("http://" + s.Admin + path)
			if err != nil || strings.Contains(dump, "PRIVATE KEY") || strings.Contains(dump, "UFJJVkFURSBLRVk") || strings.Contains(dump, "private_key") {
				t.Errorf("%s holds a private key, or there is none: %v", path, err)
			}
		}
	}
}

// grpc-go's interoperability client and server through two sidecars with mutual TLS.
func TestGRPCInteropOverMutualTLS(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, namedServer{interop.NewTestServer()})
	go server.Serve(listener)
	defer server.Stop()

	m := newSecureMesh(t)
	beside := m.sidecar("interop", "interop-1", listener.Addr().String())
	caller := m.sidecar("web", "web-1", "")
	interopThrough(t, caller, "mutual-tls", "two sidecars with mutual TLS")
	stats, err := beside.Stats()
	if err != nil || stats["outrigger.tls.handshakes_done_total"] == 0 || stats["http.inbound.downstream_cx_http2_total"] == 0 {
		t.Errorf("the calls did not go by HTTP/2 over TLS: %v", err)
	}
	for _, s := range []*mesh.Sidecar{caller, beside} {
		s.AwaitIdle()
	}
}
