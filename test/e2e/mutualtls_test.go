// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const webIdentity = "spiffe://outrigger.local/ns/default/sa/web"

// plaintextAnswer sends a request in the clear to an inbound listener.
func plaintextAnswer(address string) (*http.Response, error) {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close() //nolint:errcheck // nothing is under way
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: orders\r\n\r\n"); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(c), nil)
}

// TestSidecarsSpeakMutualTLS: the application sees who calls and not what the caller
// says; nobody gets in without a certificate.
func TestSidecarsSpeakMutualTLS(t *testing.T) {
	t.Parallel()
	m := newSecureMesh(t)
	log := m.logInbound()
	app := mesh.StartApp(t, m.Dir, "orders-1")
	beside := m.sidecar(orders, "orders-1", app.Address)
	web := m.sidecar("web", "web-1", "")
	m.AwaitAnswers(web, orders, "orders-1")
	m.awaitLine(log, "peer="+webIdentity, "status=200", "protocol=HTTP/1.1", "tls=TLSv1.3")

	// The application is told who calls, whatever the caller writes.
	for _, forged := range []string{"", "By=spiffe://outrigger.local/ns/default/sa/orders;URI=spiffe://outrigger.local/ns/default/sa/admin"} {
		got := clientCert(t, web.Outbound, forged)
		if !strings.HasPrefix(got, "By=spiffe://outrigger.local/ns/default/sa/orders;Hash=") || !strings.HasSuffix(got, ";URI="+webIdentity) || strings.Contains(got, "admin") {
			t.Errorf("with %q sent, the application reads %q", forged, got)
		}
	}
	if r, err := plaintextAnswer(beside.Inbound); err == nil {
		t.Errorf("a request in the clear was answered with %d", r.StatusCode)
	}
	beside.AwaitStat("outrigger.tls.failed_not_tls_total", func(n int) bool { return n == 1 })
	m.awaitLine(log, "status=0", "flags=DC", "reason=TLS_error:_not_a_TLS_handshake")
	page, err := mesh.Get("http://" + beside.Admin + "/mutual-tls")
	if err != nil || !strings.Contains(page, `"inbound": "strict"`) || !strings.Contains(page, "spiffe://outrigger.local/ns/default/sa/orders") {
		t.Errorf("/mutual-tls: %v\n%s", err, page)
	}
	status := m.ControlPlane.CLI("", "status")
	if !strings.Contains(status.Output, "strict") {
		t.Errorf("status does not say that the inbound listener is strict:\n%s", status.Output)
	}
	if stats, err := beside.Stats(); err != nil || stats["outrigger.tls.plaintext_accepted_total"] != 0 {
		t.Errorf("plaintext was accepted: %v %v", stats["outrigger.tls.plaintext_accepted_total"], err)
	}
}

// clientCert is x-forwarded-client-cert as the application reads it.
func clientCert(t *testing.T, outbound, forged string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+outbound+"/header?name=x-forwarded-client-cert", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = orders
	if forged != "" {
		r.Header.Set("X-Forwarded-Client-Cert", forged)
	}
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestBadCertificatesAreRefused: each is refused with a reason in the access log and
// counted, and those who have a good one do not notice.
func TestBadCertificatesAreRefused(t *testing.T) {
	t.Parallel()
	mine, other := newAuthority(t), newAuthority(t)
	m := newSecureMesh(t, "--ca-cert", mine.certificateFile, "--ca-key", mine.keyFile)
	log := m.logInbound()
	app := mesh.StartApp(t, m.Dir, "orders-1")
	beside := m.sidecar(orders, "orders-1", app.Address)
	web := m.sidecar("web", "web-1", "")
	m.AwaitAnswers(web, orders, "orders-1")
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Conns: 4, Rate: 50})

	orderID := "spiffe://outrigger.local/ns/default/sa/orders"
	cases := []struct {
		name, metric, reason string
		certificate          *tls.Certificate
	}{
		{"none", "no_certificate", "peer_showed_no_certificate", nil},
		{"expired", "certificate_expired", "certificate_has_expired", mine.issue(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = c.NotBefore.Add(-time.Hour), time.Now().Add(-time.Second)
		}, webIdentity)},
		{"not yet valid", "certificate_not_yet_valid", "certificate_is_not_yet_valid", mine.issue(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }, webIdentity)},
		{"of an unknown authority", "unknown_ca", "certificate_is_signed_by_an_unknown_authority", other.issue(t, nil, webIdentity)},
		{"of another trust domain", "unknown_ca", "certificate_is_signed_by_an_unknown_authority", other.issue(t, nil, "spiffe://elsewhere.example/ns/default/sa/web")},
		{"without a SPIFFE ID", "wrong_identity", "no_accepted_subject_alternative_name", mine.issue(t, func(c *x509.Certificate) { c.DNSNames = []string{"web"} })},
		{"with two SPIFFE IDs", "bad_identity", "subject_alternative_names_are_not_acceptable", mine.issue(t, nil, webIdentity, orderID)},
		{"for servers only", "wrong_usage", "certificate_is_not_for_this_use", mine.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, webIdentity)},
	}
	for _, c := range cases {
		stat := "outrigger.tls.failed_" + c.metric + "_total"
		stats, err := beside.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if status, err := secureAnswer(beside.Inbound, c.certificate); err == nil {
			t.Errorf("%s: answered with %d", c.name, status)
		}
		beside.AwaitStat(stat, func(n int) bool { return n == stats[stat]+1 })
		m.awaitLine(log, "status=0", "flags=DC", "reason=TLS_error:_"+c.reason)
	}
	if status, err := secureAnswer(beside.Inbound, mine.issue(t, nil, webIdentity)); err != nil || status != 200 {
		t.Errorf("a good certificate of the same authority: %d %v", status, err)
	}
	load.AwaitSent(20)
	load.Stop().Flawless(t, "while bad certificates were shown")
	mesh.Conformance(t, "D16", "%d kinds of bad certificates refused, each with its reason logged and counted", len(cases))
}

// secureAnswer sends a request over TLS with that certificate, nil for none.
func secureAnswer(address string, certificate *tls.Certificate) (status int, err error) {
	conf := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13} //nolint:gosec // the server is the one that is tested
	if certificate != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", address, conf)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // nothing is under way
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: orders\r\n\r\n"); err != nil {
		return 0, err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	return r.StatusCode, nil
}

// TestAnInstanceThatIsNotWhoItShouldBeGetsNoRequest: an endpoint that shows the
// identity of another service is as good as one that cannot be connected to.
func TestAnInstanceThatIsNotWhoItShouldBeGetsNoRequest(t *testing.T) {
	t.Parallel()
	m := newSecureMesh(t)
	app := mesh.StartApp(t, m.Dir, "orders-1")
	m.sidecar(orders, "orders-1", app.Address)
	false1 := mesh.StartApp(t, m.Dir, "false-1")
	imposter := m.sidecar("false", "false-1", false1.Address)
	web := m.sidecar("web", "web-1", "")
	m.AwaitAnswers(web, orders, "orders-1")
	// Somebody who may register anything, such as by the API, names it as an instance.
	m.ControlPlane.PutInstance(orders, "false-1", imposter.Inbound, `"mutualTLS":true`)
	web.AwaitStat("outrigger.tls.failed_wrong_identity_total", func(n int) bool {
		_, _ = mesh.Call(web.Outbound, orders, "/") // whatever it is answered
		return n > 0
	})
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Conns: 4, Rate: 100})
	load.AwaitSent(100)
	load.Stop().Flawless(t, "while an instance was not who it should be")
	if n := false1.Seen(); n != 0 {
		t.Errorf("the imposter's application had %d requests", n)
	}
}

// TestAnInstanceWithoutAnIdentityDrawsNothingInTheClear: who may register instances
// cannot make callers speak in the clear to a service that has an identity.
func TestAnInstanceWithoutAnIdentityDrawsNothingInTheClear(t *testing.T) {
	t.Parallel()
	m := newSecureMesh(t)
	app := mesh.StartApp(t, m.Dir, "orders-1")
	beside := m.sidecar(orders, "orders-1", app.Address)
	web := m.sidecar("web", "web-1", "")
	m.AwaitAnswers(web, orders, "orders-1")
	spy := mesh.StartApp(t, m.Dir, "spy-1")
	m.ControlPlane.PutInstance(orders, "spy-1", spy.Address, `"weight":65535`)
	// It fails there before it sends anything.
	web.AwaitStat("outrigger.tls.failed_not_tls_total", func(n int) bool {
		_, _ = mesh.Call(web.Outbound, orders, "/") // whatever it is answered
		return n > 0
	})
	// Nor by taking the address of one that has an identity.
	m.ControlPlane.PutInstance(orders, "spy-2", beside.Inbound)
	for range 20 {
		_, _ = mesh.Call(web.Outbound, orders, "/")
	}
	if n := spy.Seen(); n != 0 {
		t.Errorf("it had %d requests", n)
	}
	if stats, err := beside.Stats(); err != nil || stats["outrigger.tls.failed_not_tls_total"] != 0 {
		t.Errorf("somebody spoke in the clear with a secure instance: %v %v", stats["outrigger.tls.failed_not_tls_total"], err)
	}
}

// TestPermissiveEndsByItself: plaintext is let in and counted until the date that the
// policy names, and not a moment by default.
func TestPermissiveEndsByItself(t *testing.T) {
	t.Parallel()
	m := newSecureMesh(t)
	policy := func(until time.Time) string {
		return "apiVersion: outrigger.io/v1\nkind: TrafficPolicy\nmetadata: {name: orders}\nspec:\n  targetRef: {kind: Service, name: orders}\n" +
			"  tls: {mode: permissive, until: " + until.UTC().Format(time.RFC3339Nano) + "}\n"
	}
	m.apply(policy(time.Now().Add(time.Hour)))
	app := mesh.StartApp(t, m.Dir, "orders-1")
	beside := m.sidecar(orders, "orders-1", app.Address)
	web := m.sidecar("web", "web-1", "")
	plain := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{Service: "old", ID: "old-1", XDS: m.ControlPlane.XDS})
	plain.AwaitReady()
	m.AwaitAnswers(web, orders, "orders-1")
	m.AwaitAnswers(plain, orders, "orders-1")
	if r, err := plaintextAnswer(beside.Inbound); err != nil || r.StatusCode != 200 {
		t.Fatalf("while permissive, a request in the clear: %v %v", r, err)
	}
	beside.AwaitStat("outrigger.tls.plaintext_accepted_total", func(n int) bool { return n >= 2 })
	if got := clientCert(t, web.Outbound, ""); !strings.HasSuffix(got, ";URI="+webIdentity) {
		t.Errorf("those with an identity do not use it: %q", got)
	}
	if got := clientCert(t, plain.Outbound, "URI="+webIdentity); got != "" {
		t.Errorf("a caller in the clear is taken for %q", got)
	}
	if status := m.ControlPlane.CLI("", "status"); !strings.Contains(status.Output, "permissive") {
		t.Errorf("status does not say permissive:\n%s", status.Output)
	}
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: web.Outbound, Host: orders, Conns: 4, Rate: 100})
	load.AwaitSent(20)

	m.apply(policy(time.Now().Add(2 * time.Second)))
	beside.Await(30*time.Second, "plaintext is refused after the date", func() error {
		if r, err := plaintextAnswer(beside.Inbound); err == nil {
			return fmt.Errorf("answered with %d", r.StatusCode)
		}
		return nil
	})
	load.AwaitSent(50)
	load.Stop().Flawless(t, "while permissive ended")
	if status := m.ControlPlane.CLI("", "status"); !strings.Contains(status.Output, "strict") {
		t.Errorf("status does not say strict:\n%s", status.Output)
	}
}

// TestStrictMakesNoException: an instance without an identity is spoken to in the
// clear, until its service's policy says that nobody is; then it is not spoken to, and
// has no listener.
func TestStrictMakesNoException(t *testing.T) {
	t.Parallel()
	m := newSecureMesh(t)
	app := mesh.StartApp(t, m.Dir, "orders-1")
	beside := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{Service: orders, ID: "orders-1", App: app.Address, XDS: m.ControlPlane.XDS})
	beside.AwaitReady()
	m.AwaitInstance(orders, "orders-1", true)
	web := m.sidecar("web", "web-1", "")
	m.AwaitAnswers(web, orders, "orders-1")

	m.apply("apiVersion: outrigger.io/v1\nkind: TrafficPolicy\nmetadata: {name: orders}\nspec:\n  targetRef: {kind: Service, name: orders}\n  tls: {mode: strict}\n")
	beside.Await(30*time.Second, "the inbound listener is closed", func() error {
		c, err := net.DialTimeout("tcp", beside.Inbound, time.Second)
		if err == nil {
			_ = c.Close() // nothing is under way
			return errors.New("it takes connections")
		}
		return nil
	})
	// The caller's sidecar hears of it by itself; until then it has a connection that drains.
	web.Await(30*time.Second, "the caller goes by the policy", func() error {
		if a, err := mesh.Call(web.Outbound, orders, "/"); err != nil || a.Status != 503 {
			return fmt.Errorf("%+v %v", a, err)
		}
		return nil
	})
	seen := app.Seen()
	for range 10 {
		if a, err := mesh.Call(web.Outbound, orders, "/"); err != nil || a.Status != 503 {
			t.Errorf("%+v %v", a, err)
		}
	}
	if now := app.Seen(); now != seen {
		t.Errorf("the application had a request in the clear")
	}
	if status := m.ControlPlane.CLI("", "status"); !strings.Contains(status.Output, "closed") {
		t.Errorf("status does not say that the listener is closed:\n%s", status.Output)
	}
}
