// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/substitution"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	shopID = "spiffe://mesh.example/ns/shop/sa/shop"
	webID  = "spiffe://mesh.example/ns/shop/sa/web"
)

// mint is an authority of certificates.
type mint struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newMint(t testing.TB) *mint {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &mint{t, cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (m *mint) issue(id string, until time.Time) *resource.TLSCertificate {
	m.t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	u, _ := url.Parse(id)
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	c := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: until, URIs: []*url.URL{u}, DNSNames: []string{"a.example"}, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, m.cert, key.Public(), m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	k, _ := x509.MarshalPKCS8PrivateKey(key)
	return &resource.TLSCertificate{
		Chain: resource.DataSource{Inline: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})},
		Key:   resource.DataSource{Inline: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k})},
	}
}

func (m *mint) trust(id string) *resource.ValidationContext {
	return &resource.ValidationContext{
		TrustedCA: resource.DataSource{Inline: m.pem}, MaxDepth: -1,
		SANs: []resource.SANMatcher{{Kind: resource.SANURI, Match: resource.StringMatch{Value: id}}},
	}
}

func (m *mint) config(c *resource.TLSCertificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(m.cert)
	k, err := tls.X509KeyPair(c.Chain.Inline, c.Key.Inline)
	if err != nil {
		m.t.Fatal(err)
	}
	return &tls.Config{RootCAs: pool, ClientCAs: pool, ServerName: "a.example", Certificates: []tls.Certificate{k}}
}

// secureBackend is net/http's server, with clients' certificates required.
func secureBackend(m *mint, id string, h http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(h)
	s.TLS = m.config(m.issue(id, time.Now().Add(time.Hour)))
	s.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	s.StartTLS()
	m.t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// secured is a snapshot's listener and cluster with TLS by secrets.
func secured(m *mint, s *resource.Snapshot, to string) {
	s.Secrets = map[string]*resource.Secret{
		"cert": {Name: "cert", Certificate: m.issue(shopID, time.Now().Add(time.Hour))},
		"ca":   {Name: "ca", Validation: m.trust(webID)},
	}
	s.Listeners["l"].FilterChains[0].TLS = &resource.DownstreamTLS{
		CommonTLS:                resource.CommonTLS{CertificateSecrets: []string{"cert"}, ValidationSecret: "ca"},
		RequireClientCertificate: true,
	}
	c := withCluster(s, "c", to)
	c.TLS = &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{CertificateSecrets: []string{"cert"}, Validation: m.trust(shopID)}, MaxSessionKeys: 1}
}

// logTo adds an access log of the listener and its chain, and returns a reader of it.
func logTo(t *testing.T, s *resource.Snapshot, format string) func(want string) {
	t.Helper()
	f, err := substitution.Parse(format + "\n")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log")
	logs := []*resource.AccessLog{{File: &resource.FileLog{Path: path, Format: &resource.LogFormat{Text: f}}}}
	s.Listeners["l"].AccessLog = logs
	s.Listeners["l"].FilterChains[0].HTTP.AccessLog = logs
	return func(want string) {
		t.Helper()
		deadline := time.Now().Add(5 * time.Second)
		for {
			b, _ := os.ReadFile(path)
			if strings.Contains(string(b), want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the access log has no %q:\n%s", want, b)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (r *rig) secureClient(c *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: c}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func TestRequestsPassOverMutualTLSOnBothSides(t *testing.T) {
	m := newMint(t)
	b := secureBackend(m, shopID, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Proto", q.Header.Get("X-Forwarded-Proto"))
		w.Write(body)
	})
	var saw func(string)
	r := newRig(t, func(s *resource.Snapshot) {
		secured(m, s, b)
		saw = logTo(t, s, "%RESPONSE_CODE% %DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN% %REQUESTED_SERVER_NAME% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%")
	})
	c := r.secureClient(m.config(m.issue(webID, time.Now().Add(time.Hour))))
	for _, size := range []int{0, 1, 70_000, 3_000_000} {
		want := strings.Repeat("x", size)
		resp, err := c.Post("https://"+r.addr+"/", "text/plain", strings.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != want || resp.StatusCode != 200 || resp.Header.Get("X-Proto") != "https" {
			t.Fatalf("%d bytes: %d, %d bytes back, proto %q, %v", size, resp.StatusCode, len(got), resp.Header.Get("X-Proto"), err)
		}
	}
	saw("200 TLSv1.3 " + webID + " " + shopID + " a.example -")
	if n := len(r.p.Certificates()); n != 4 {
		t.Errorf("%d certificates are listed, want one and its authority on each side", n)
	}
}

func TestPeersThatAreRefusedAreLoggedWithTheReason(t *testing.T) {
	m := newMint(t)
	b := secureBackend(m, webID, func(http.ResponseWriter, *http.Request) {}) // not who the cluster wants
	var saw func(string)
	r := newRig(t, func(s *resource.Snapshot) {
		secured(m, s, b)
		saw = logTo(t, s, "%RESPONSE_CODE% down=%DOWNSTREAM_TRANSPORT_FAILURE_REASON% up=%UPSTREAM_TRANSPORT_FAILURE_REASON%")
	})
	for id, until := range map[string]time.Time{webID: time.Now().Add(-time.Minute), shopID: time.Now().Add(time.Hour)} {
		if resp, err := r.secureClient(m.config(m.issue(id, until))).Get("https://" + r.addr + "/"); err == nil {
			resp.Body.Close()
			t.Errorf("a client that is not accepted got %d", resp.StatusCode)
		}
	}
	saw("down=TLS_error:_certificate_has_expired")
	saw("down=TLS_error:_no_accepted_subject_alternative_name")
	resp, err := r.secureClient(m.config(m.issue(webID, time.Now().Add(time.Hour)))).Get("https://" + r.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("an upstream that is somebody else: %d, want 503", resp.StatusCode)
	}
	saw("503 down=- up=TLS_error:_no_accepted_subject_alternative_name")
	resp, err = r.client().Get("http://" + r.addr + "/")
	if err == nil {
		resp.Body.Close()
		t.Errorf("plaintext was answered with %d", resp.StatusCode)
	}
	saw("down=TLS_error:_not_a_TLS_handshake")
	all, err := r.p.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for i := range all {
		got[all[i].Name] += all[i].Value
	}
	for name, least := range map[string]uint64{"certificate_expired": 1, "wrong_identity": 2, "not_tls": 1} {
		if n := got["outrigger.tls.failed_"+name+"_total"]; n < least {
			t.Errorf("%s was counted %d times, want %d at least", name, n, least)
		}
	}
}

func TestCertificatesRotateUnderTraffic(t *testing.T) {
	old, next := newMint(t), newMint(t)
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, "ok") })
	r := newRig(t, func(s *resource.Snapshot) {
		secured(old, s, b)
		s.Clusters["c"].TLS = nil
	})
	both := resource.DataSource{Inline: append(append([]byte{}, old.pem...), next.pem...)}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(both.Inline)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var done atomic.Int64
	for i := range 4 {
		conf := old.config(old.issue(webID, time.Now().Add(time.Hour)))
		conf.RootCAs = pool
		c := r.secureClient(conf)
		c.Transport.(*http.Transport).DisableKeepAlives = i < 2
		wg.Go(func() {
			for !stop.Load() {
				resp, err := c.Get("https://" + r.addr + "/")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				done.Add(1)
			}
		})
	}
	for i := range 20 {
		from := done.Load()
		m := []*mint{old, next}[i%2]
		v := old.trust(webID)
		v.TrustedCA = both
		s := frozen(r.snap)
		s.Secrets = map[string]*resource.Secret{
			"cert": {Name: "cert", Certificate: m.issue(shopID, time.Now().Add(time.Hour))},
			"ca":   {Name: "ca", Validation: v},
		}
		r.snap.Secrets = s.Secrets
		r.apply(r.snap)
		for done.Load() < from+20 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
	}
	stop.Store(true)
	wg.Wait()
}

func TestHTTP2PassesOverMutualTLSOnBothSides(t *testing.T) {
	m := newMint(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Upstream", q.Proto)
		_, _ = io.Copy(w, q.Body)
	}))
	s.TLS = m.config(m.issue(shopID, time.Now().Add(time.Hour)))
	s.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	r := newRig(t, func(snap *resource.Snapshot) {
		secured(m, snap, s.Listener.Addr().String())
		snap.Listeners["l"].FilterChains[0].TLS.ALPN = []string{"h2", "http/1.1"}
		snap.Clusters["c"].HTTP2 = true
		snap.Clusters["c"].TLS.ALPN = []string{"h2"}
	})
	c := r.secureClient(m.config(m.issue(webID, time.Now().Add(time.Hour))))
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	for _, size := range []int{0, 10, 1_000_000} {
		want := strings.Repeat("x", size)
		resp, err := c.Post("https://"+r.addr+"/", "text/plain", strings.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != want || resp.ProtoMajor != 2 || resp.Header.Get("X-Upstream") != "HTTP/2.0" {
			t.Errorf("%d bytes: %d over %s and %q, %d bytes back, %v", size, resp.StatusCode, resp.Proto, resp.Header.Get("X-Upstream"), len(got), err)
		}
	}
}
