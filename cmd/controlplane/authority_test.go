// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

// patience bounds every wait; a test that passes is far below it.
const patience = 20 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until waits for what to hold.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, tick := within(t), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// secureDaemon is a control plane with its mutual TLS port, its roots in a file.
type secureDaemon struct {
	*daemon
	roots string
}

func serveSecure(t *testing.T, data string, args ...string) *secureDaemon {
	t.Helper()
	d := &secureDaemon{serveDaemon(t, data, append(args, "--xds-mtls", "127.0.0.1:0")...), filepath.Join(t.TempDir(), "roots.pem")}
	if d.mtls == "" {
		t.Fatalf("no line for the port with mutual TLS:\n%s", d.log)
	}
	writeFile(t, d.roots, d.want(d.run("", "ca", "bundle"), 0, "BEGIN CERTIFICATE").out)
	return d
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// token makes a bootstrap token for a service and returns its file.
func (d *secureDaemon) token(service string) string {
	d.t.Helper()
	path := filepath.Join(d.t.TempDir(), "token")
	writeFile(d.t, path, d.want(d.run("", "ca", "token", "--service", service), 0, "ort1.", "good until").out)
	return path
}

// keeper is the certificate keeper of a sidecar of a service.
func (d *secureDaemon) keeper(service string) *agent.Certificates {
	return agent.NewCertificates(agent.CertificatesConfig{
		Service: service, TrustDomain: identity.DefaultTrustDomain, RootFile: d.roots, MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
	})
}

// dial connects to the port with mutual TLS.
func (d *secureDaemon) dial(c *tls.Config, tokenFile string) *grpc.ClientConn {
	d.t.Helper()
	conn, err := grpcdial.Dial(grpcdial.Config{Target: d.mtls, TLS: c, TokenFile: tokenFile, MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// keep runs an agent that keeps the certificates, until the test ends.
func (d *secureDaemon) keep(conn grpc.ClientConnInterface, service string, c *agent.Certificates) {
	d.t.Helper()
	a, err := agent.New(agent.Config{Conn: conn, Node: service + "~1", Boot: "1", Service: service, Certificates: c})
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { a.Run(ctx); close(ended) }() // ends with stop
	d.t.Cleanup(func() { stop(); <-ended })
}

// metric reads one line of /metrics.
func (d *daemon) metric(line string) string {
	d.t.Helper()
	for l := range strings.Lines(d.get("/metrics")) {
		if value, ok := strings.CutPrefix(l, "outrigger_controlplane_"+line+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (d *daemon) get(path string) string {
	d.t.Helper()
	resp, err := http.Get(d.http + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(body)
}

func askFor(ctx context.Context, conn grpc.ClientConnInterface, service string) error {
	key, err := identity.NewKey()
	if err != nil {
		return err
	}
	request, err := identity.NewRequest(key, identity.ID{})
	if err != nil {
		return err
	}
	_, err = sidecarv1.NewSidecarServiceClient(conn).RequestCertificate(ctx, &sidecarv1.CertificateRequest{
		Sender: &sidecarv1.Sender{Node: service + "~1", Boot: "1", Service: service}, SigningRequest: request,
	})
	return err
}

func wantRefused(t *testing.T, err error, code codes.Code, says string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %v with %q", err, code, says)
	}
}

func TestASidecarComesWithItsTokenAndRenewsWithItsCertificate(t *testing.T) {
	d := serveSecure(t, t.TempDir())
	keeper := d.keeper("orders")
	d.keep(d.dial(keeper.ClientTLS(), d.token("orders")), "orders", keeper)
	until(t, "there is a certificate", func() bool { return keeper.Credentials() != nil })
	c := keeper.Credentials()
	if c.Identity.String() != "spiffe://outrigger.local/ns/default/sa/orders" {
		t.Errorf("got %v", c.Identity)
	}
	if life := time.Until(c.NotAfter); life < 23*time.Hour || life > 24*time.Hour {
		t.Errorf("it lives %v", life)
	}
	if _, err := tls.X509KeyPair(c.CertificateChain, c.PrivateKey); err != nil {
		t.Error(err)
	}
	// With the certificate alone: the same identity and no other.
	conn := d.dial(keeper.ClientTLS(), "")
	if err := askFor(within(t), conn, "orders"); err != nil {
		t.Error(err)
	}
	wantRefused(t, askFor(within(t), conn, "payments"), codes.PermissionDenied, "the caller's certificate is of service orders")
	for line, want := range map[string]string{
		`certificates_issued_total{means="bootstrap-token"}`: "1", `certificates_issued_total{means="certificate"}`: "1",
		`certificates_refused_total{reason="not_allowed"}`: "1",
	} {
		if got := d.metric(line); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

// streamAs opens an ADS stream as a node and returns what became of it.
func streamAs(t *testing.T, conn grpc.ClientConnInterface, id, service string) error {
	t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(within(t))
	if err != nil {
		return err
	}
	err = stream.Send(&discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: id, Cluster: service}, TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
	})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func TestAStolenTokenGivesNoOtherServicesIdentity(t *testing.T) {
	d := serveSecure(t, t.TempDir())
	conn := d.dial(d.keeper("payments").ClientTLS(), d.token("orders"))
	wantRefused(t, askFor(within(t), conn, "payments"), codes.PermissionDenied, "is good for orders")
	client := sidecarv1.NewSidecarServiceClient(conn)
	_, err := client.Register(within(t), &sidecarv1.RegisterRequest{
		Sender: &sidecarv1.Sender{Node: "payments~1"}, Instance: &sidecarv1.Instance{Service: "payments", Id: "1", Address: "127.0.0.1", Port: 80},
	})
	wantRefused(t, err, codes.PermissionDenied, `service "payments"`)
	_, err = client.Deregister(within(t), &sidecarv1.DeregisterRequest{Instance: &sidecarv1.InstanceKey{Service: "payments", Id: "1"}})
	wantRefused(t, err, codes.PermissionDenied, `service "payments"`)
	_, err = client.Renew(within(t), &sidecarv1.RenewRequest{
		Sender: &sidecarv1.Sender{Node: "payments~1"}, Instance: &sidecarv1.InstanceKey{Service: "orders", Id: "1"},
	})
	wantRefused(t, err, codes.PermissionDenied, `sender.node "payments~1"`)
	watch, err := client.WatchTrustBundle(within(t), &sidecarv1.WatchTrustBundleRequest{Sender: &sidecarv1.Sender{Node: "payments~1", Service: "orders"}})
	if err == nil {
		_, err = watch.Recv()
	}
	wantRefused(t, err, codes.PermissionDenied, `sender.node "payments~1"`)
	wantRefused(t, streamAs(t, conn, "x", "payments"), codes.PermissionDenied, `service "payments"`)
	wantRefused(t, streamAs(t, conn, "payments~1", "orders"), codes.PermissionDenied, `node "payments~1"`)
	if err := streamAs(t, conn, "orders~1", "orders"); err != nil {
		t.Errorf("its own: %v", err)
	}
	if !strings.Contains(d.stopped(), "reason=not_allowed") {
		t.Error("no audit line")
	}
}

// stopped ends the daemon and returns its log.
func (d *daemon) stopped() string {
	d.kill()
	return d.log.String()
}

// outside is an authority in files, that signs whatever the test wants.
type outside struct {
	t         *testing.T
	dir       string
	cert, key string // files
	issuer    *x509.Certificate
	signer    *ecdsa.PrivateKey
}

func newOutside(t *testing.T, dir string) *outside {
	t.Helper()
	o := &outside{t: t, dir: dir, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	o.replace()
	return o
}

// replace makes another self-signed authority in the same files.
func (o *outside) replace() {
	o.t.Helper()
	var err error
	if o.signer, err = identity.NewKey(); err != nil {
		o.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	template.Subject.CommonName = template.SerialNumber.String()
	der, err := x509.CreateCertificate(rand.Reader, template, template, o.signer.Public(), o.signer)
	if err != nil {
		o.t.Fatal(err)
	}
	if o.issuer, err = x509.ParseCertificate(der); err != nil {
		o.t.Fatal(err)
	}
	key, err := identity.EncodeKey(o.signer)
	if err != nil {
		o.t.Fatal(err)
	}
	writeFile(o.t, o.key, string(key))
	writeFile(o.t, o.cert, string(identity.EncodeCertificates(der)))
}

// client is a TLS configuration that shows a certificate which change has spoilt.
func (o *outside) client(change func(*x509.Certificate)) *tls.Config {
	o.t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		o.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, URIs: []*url.URL{{Scheme: "spiffe", Host: identity.DefaultTrustDomain, Path: "/ns/default/sa/orders"}},
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, o.issuer, key.Public(), o.signer)
	if err != nil {
		o.t.Fatal(err)
	}
	return &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"}, //nolint:gosec // the server is what is tested
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}

func TestAClientWithoutAValidCertificateIsRefusedWithAReason(t *testing.T) {
	o, stranger := newOutside(t, t.TempDir()), newOutside(t, t.TempDir())
	d := serveSecure(t, t.TempDir(), "--ca-cert", o.cert, "--ca-key", o.key)
	for _, x := range []struct {
		name   string
		client *tls.Config
		reason string
	}{
		{"missing", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}, "missing"}, //nolint:gosec // as above
		{"expired", o.client(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "expired"},
		{"of another authority", stranger.client(func(*x509.Certificate) {}), "unknown_authority"},
		{"wrong name", o.client(func(c *x509.Certificate) { c.URIs = nil; c.DNSNames = []string{"orders"} }), "wrong_identity"},
		{"two names", o.client(func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), "wrong_identity"},
		{"another trust domain", o.client(func(c *x509.Certificate) { c.URIs[0].Host = "evil.example" }), "wrong_identity"},
		{"no service", o.client(func(c *x509.Certificate) { c.URIs[0].Path = "/ns/outrigger-system/sa/controlplane" }), "wrong_identity"},
		{"for servers only", o.client(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), "wrong_usage"},
	} {
		t.Run(x.name, func(t *testing.T) {
			line := `callers_refused_total{reason="` + x.reason + `"}`
			before := d.metric(line)
			if err := askFor(within(t), d.dial(x.client, ""), "orders"); err == nil {
				t.Fatal("let in")
			}
			if got := d.metric(line); got == "" || got == before {
				t.Errorf("%s: %q before, %q after", line, before, got)
			}
		})
	}
	if err := askFor(within(t), d.dial(o.client(func(*x509.Certificate) {}), ""), "orders"); err != nil {
		t.Errorf("a good one: %v", err)
	}
	wrong := filepath.Join(t.TempDir(), "token")
	writeFile(t, wrong, "ort1.nothing.atall")
	wantRefused(t, askFor(within(t), d.dial(d.keeper("orders").ClientTLS(), wrong), "orders"), codes.Unauthenticated, "is not one of this mesh")
}

func TestWithoutCredentialsOnlyThisHostGetsACertificate(t *testing.T) {
	d := serveSecure(t, t.TempDir())
	conn, err := grpcdial.Dial(grpcdial.Config{Target: d.xds})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := askFor(within(t), conn, "orders"); err != nil {
		t.Error(err)
	}
	// Unknown fields of a later version are tolerated; a hostile request is refused by name.
	client := sidecarv1.NewSidecarServiceClient(conn)
	r := &sidecarv1.CertificateRequest{Sender: &sidecarv1.Sender{Node: "orders~1", Service: "orders"}, SigningRequest: make([]byte, 1<<20)}
	r.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
	_, err = client.RequestCertificate(within(t), r)
	wantRefused(t, err, codes.InvalidArgument, "1048576 bytes, the limit is 4096")
	wantRefused(t, askFor(within(t), conn, "../payments"), codes.InvalidArgument, `sender.service "../payments"`)
	if got := d.metric(`certificates_refused_total{reason="too_large"}`); got != "1" {
		t.Errorf("too large: got %q", got)
	}
	// Who asks in a loop is slowed down, and others are not.
	slowed := false
	for range 400 {
		if err := askFor(within(t), conn, "loop"); status.Code(err) == codes.ResourceExhausted {
			slowed = true
			break
		}
	}
	if !slowed {
		t.Error("nothing limits the requests")
	}
	if err := askFor(within(t), conn, "orders"); err != nil {
		t.Errorf("another service: %v", err)
	}
}

// authorityKeys are the private keys in a data folder.
func authorityKeys(t *testing.T, data string) (keys [][]byte) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(data, "ca", "authority.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Roots        []struct{ Key []byte }
		Intermediate struct{ Key []byte }
		TokenKey     []byte
	}
	if err := json.Unmarshal(content, &s); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.Roots {
		keys = append(keys, r.Key)
	}
	return append(keys, s.Intermediate.Key, s.TokenKey)
}

func TestNoKeyIsInLogsOrAnswers(t *testing.T) {
	data := t.TempDir()
	d := serveSecure(t, data, "--log-level", "debug")
	keeper := d.keeper("orders")
	tokenFile := d.token("orders")
	d.keep(d.dial(keeper.ClientTLS(), tokenFile), "orders", keeper)
	until(t, "there is a certificate", func() bool { return keeper.Credentials() != nil })
	d.want(d.run("", "ca", "rotate"), 0, "announced", "signs at")
	wantRefused(t, askFor(within(t), d.dial(keeper.ClientTLS(), ""), "payments"), codes.PermissionDenied, "")
	shown := d.get("/v1/ca") + d.get("/v1/status") + d.get("/v1/sidecars") + d.get("/v1/events") + d.get("/metrics") + d.get("/v1/objects") +
		d.run("", "ca", "status").out + d.run("", "ca", "status", "-o", "json").out
	keys := authorityKeys(t, data)
	shown += d.stopped()
	if !strings.Contains(shown, "certificate issued") || !strings.Contains(shown, "BEGIN CERTIFICATE") {
		t.Fatalf("there is little to look through:\n%s", shown)
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(keeper.Credentials().PrivateKey), "\n")
	secrets := []string{"PRIVATE KEY", lines[1][48:], strings.TrimSpace(string(token))[60:]}
	for _, key := range keys {
		if len(key) > 68 {
			key = key[36:68] // what is secret of PKCS #8 with a P-256 key; the rest is the public one
		}
		for at := range 3 {
			secrets = append(secrets, base64.StdEncoding.EncodeToString(key[at:][:12]))
		}
		secrets = append(secrets, string(key), hex.EncodeToString(key))
	}
	for _, s := range secrets {
		if s == "" || strings.Contains(shown, s) {
			t.Errorf("%q is shown", s)
		}
	}
}
