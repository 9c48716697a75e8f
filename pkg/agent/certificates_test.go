// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/authority"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

const testDomain = "mesh.example"

func newAuthority(t *testing.T) *identity.Authority {
	t.Helper()
	a, err := identity.Open(time.Now(), nil, identity.Config{TrustDomain: testDomain, Save: func(identity.State) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// answerOf is what the control plane answers.
func answerOf(t *testing.T, a *identity.Authority, request []byte, service string) *sidecarv1.CertificateResponse {
	t.Helper()
	id := identity.ServiceID(testDomain, service)
	key, err := identity.CheckRequest(request, id)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Issue(time.Now(), key, id)
	if err != nil {
		t.Fatal(err)
	}
	return &sidecarv1.CertificateResponse{
		Identity: id.String(), Chain: issued.Chain, TrustBundle: &sidecarv1.TrustBundle{TrustDomain: testDomain, Roots: issued.Bundle.Roots},
	}
}

func TestAnAnswerThatIsNotForThisSidecarIsNotTaken(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewRequest(key, identity.ID{})
	if err != nil {
		t.Fatal(err)
	}
	otherRequest, err := identity.NewRequest(other, identity.ID{})
	if err != nil {
		t.Fatal(err)
	}
	good := answerOf(t, a, request, "orders")
	c := NewCertificates(CertificatesConfig{Service: "orders", TrustDomain: testDomain})
	for _, x := range []struct {
		name   string
		answer *sidecarv1.CertificateResponse
		says   string
	}{
		{"nothing", &sidecarv1.CertificateResponse{}, "0 certificates"},
		{"rubbish", &sidecarv1.CertificateResponse{Chain: [][]byte{{1}}, TrustBundle: good.TrustBundle}, "chain: certificate 1"},
		{"no bundle", &sidecarv1.CertificateResponse{Chain: good.Chain}, "trust bundle: 0 certificates"},
		{"another service", answerOf(t, a, request, "payments"), "want spiffe://mesh.example/ns/default/sa/orders"},
		{"another key", answerOf(t, a, otherRequest, "orders"), "for another key"},
		{"a bundle that does not fit", &sidecarv1.CertificateResponse{Chain: good.Chain, TrustBundle: answerOf(t, stranger, request, "orders").TrustBundle}, "unknown authority"},
		{"another trust domain", &sidecarv1.CertificateResponse{Chain: good.Chain, TrustBundle: &sidecarv1.TrustBundle{TrustDomain: "evil.example", Roots: good.TrustBundle.Roots}}, `trust domain "evil.example"`},
	} {
		t.Run(x.name, func(t *testing.T) {
			if err := c.take(key, x.answer); err == nil || !strings.Contains(err.Error(), x.says) {
				t.Errorf("got %v, want %q", err, x.says)
			}
			if c.Credentials() != nil {
				t.Error("it is in force")
			}
		})
	}
	changed, stop := c.Changes()
	defer stop()
	if err := c.take(key, good); err != nil {
		t.Fatal(err)
	}
	<-changed
	got := c.Credentials()
	if got.Identity != identity.ServiceID(testDomain, "orders") {
		t.Errorf("got %v", got)
	}
	// A new bundle is new credentials; the same again is nothing new.
	bundle := &sidecarv1.TrustBundle{TrustDomain: testDomain, Roots: append(stranger.Bundle().Roots, good.TrustBundle.Roots...)}
	for range 2 {
		if err := c.setBundle(bundle); err != nil {
			t.Fatal(err)
		}
	}
	<-changed
	select {
	case <-changed:
		t.Error("told of a change twice")
	default:
	}
	if next := c.Credentials(); next == got || string(next.CertificateChain) != string(got.CertificateChain) || string(next.TrustBundle) == string(got.TrustBundle) {
		t.Error("the bundle did not change alone")
	}
	wantNoKeyShown(t, c)
}

// wantNoKeyShown prints all that the sidecar shows.
func wantNoKeyShown(t *testing.T, c *Certificates) {
	t.Helper()
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, nil))
	credentials := c.Credentials()
	log.Info("all", "credentials", credentials, "value", *credentials, "status", c.Status())
	fmt.Fprintf(&b, "%v %+v %#v %+v", *credentials, *credentials, *credentials, c.Status())
	data, err := json.Marshal([]any{credentials, c.Status(), (&Agent{certificates: c}).Status()})
	if err != nil {
		t.Fatal(err)
	}
	b.Write(data)
	lines := strings.Split(string(credentials.PrivateKey), "\n")
	for _, form := range []string{"PRIVATE KEY", lines[1][48:], fmt.Sprint(credentials.PrivateKey[80:90])} {
		if strings.Contains(b.String(), strings.Trim(form, "[]")) {
			t.Errorf("%q is shown in %s", form, b.String())
		}
	}
}

// TestAControlPlaneIsKnownByItsIdentity dials real TLS servers that are not it.
func TestAControlPlaneIsKnownByItsIdentity(t *testing.T) {
	run, err := authority.Open(authority.Config{Dir: t.TempDir(), TrustDomain: testDomain})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := authority.Open(authority.Config{Dir: t.TempDir(), TrustDomain: testDomain})
	if err != nil {
		t.Fatal(err)
	}
	// A sidecar of the mesh that pretends to be the control plane.
	pretender := NewCertificates(CertificatesConfig{Service: "orders", TrustDomain: testDomain})
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewRequest(key, identity.ID{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pretender.take(key, answerOf(t, run.Authority(), request, "orders")); err != nil {
		t.Fatal(err)
	}
	pretending := run.ServerTLS()
	pretending.GetConfigForClient, pretending.GetCertificate = nil, nil
	pretending.Certificates = append(pretending.Certificates, *pretender.shown)

	client := NewCertificates(CertificatesConfig{Service: "web", TrustDomain: testDomain})
	if err := client.setBundle(&sidecarv1.TrustBundle{TrustDomain: testDomain, Roots: run.Authority().Bundle().Roots}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name  string
		creds credentials.TransportCredentials
		says  string
	}{
		{"the control plane", credentials.NewTLS(run.ServerTLS()), ""},
		{"a service", credentials.NewTLS(pretending), "its certificate is that of spiffe://mesh.example/ns/default/sa/orders"},
		{"another mesh's", credentials.NewTLS(stranger.ServerTLS()), "unknown authority"},
	} {
		t.Run(x.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer(grpc.Creds(x.creds))
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }() // ends with Stop
			defer func() { server.Stop(); <-served }()
			conn, err := grpcdial.Dial(grpcdial.Config{Target: l.Addr().String(), TLS: client.ClientTLS()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err = sidecarv1.NewSidecarServiceClient(conn).Renew(ctx, &sidecarv1.RenewRequest{})
			if x.says == "" {
				if status.Code(err) != codes.Unimplemented { // it answers; there is no service
					t.Errorf("got %v", err)
				}
			} else if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), x.says) {
				t.Errorf("got %v, want %q", err, x.says)
			}
		})
	}
}

// journal keeps nothing: no instance is registered here.
type journal struct{}

func (journal) NextRevision() uint64                   { return 1 }
func (journal) CommitInstances([]registry.Write) error { return nil }

// TestAControlPlaneThatIsNoAuthorityDoesNoHarm: an older one, or one that is told not
// to be; the sidecar goes on without an identity.
func TestAControlPlaneThatIsNoAuthorityDoesNoHarm(t *testing.T) {
	reg, err := registry.New(registry.Config{Journal: journal{}, Publish: func([]mesh.Change) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	service, err := sidecarservice.New(sidecarservice.Config{Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	server := grpc.NewServer(grpc.UnaryInterceptor(func(within context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		select {
		case calls <- struct{}{}:
		case <-ctx.Done():
		}
		return handle(within, req)
	}))
	service.Attach(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // ends with Stop
	defer func() { server.Stop(); <-served }()
	conn, err := grpcdial.Dial(grpcdial.Config{Target: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	c := NewCertificates(CertificatesConfig{Service: "orders", MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond})
	a, err := New(Config{Conn: conn, Node: "orders~1", Boot: "1", Service: "orders", Certificates: c})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { a.Run(ctx); close(ended) }() // ends with stop
	defer func() { stop(); <-ended }()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for range 4 { // the fourth comes when three have failed
		select {
		case <-calls:
		case <-deadline.C:
			t.Fatalf("it does not try again: %+v", c.Status())
		}
	}
	if n := c.Status().Failed; n < 3 {
		t.Errorf("%d failures were counted, want 3", n)
	}
	if s := a.Status().Certificate; c.Credentials() != nil || s == nil || !strings.Contains(s.LastError, "is no authority") {
		t.Errorf("got %+v", s)
	}
}
