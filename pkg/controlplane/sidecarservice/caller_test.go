// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

func as(t *testing.T, c Caller) context.Context {
	t.Helper()
	return context.WithValue(t.Context(), callerKey{}, c)
}

func certificateOf(service string) Caller {
	return Caller{Means: ByCertificate, Service: service, Remote: "192.0.2.1"}
}

// A port that is open to all lets a mesh in the clear work, and nobody touch what has
// an identity.
func TestAStrangerHasNoSayOverInstancesWithAnIdentity(t *testing.T) {
	f := start(t)
	h := &handler{Service: f.service}
	stranger, owner := as(t, Caller{Remote: "192.0.2.9"}), as(t, certificateOf("orders"))
	instance := &sidecarv1.InstanceKey{Service: "orders", Id: "1"}
	sender := registration().Sender
	touch := func(ctx context.Context) map[string]error {
		_, health := h.SetHealth(ctx, &sidecarv1.SetHealthRequest{Sender: sender, Instance: instance, Health: sidecarv1.Health_HEALTH_UNHEALTHY})
		_, renew := h.Renew(ctx, &sidecarv1.RenewRequest{Sender: sender, Instance: instance, Health: sidecarv1.Health_HEALTH_DRAINING})
		_, again := h.Register(ctx, registration())
		_, gone := h.Deregister(ctx, &sidecarv1.DeregisterRequest{Sender: sender, Instance: instance})
		return map[string]error{"set health": health, "renew": renew, "register": again, "deregister": gone}
	}

	secure := registration()
	secure.Instance.MutualTls, secure.Lease = true, durationpb.New(time.Minute)
	_, err := h.Register(stranger, secure)
	wantStatus(t, err, codes.PermissionDenied, "register: orders/1 has an identity")
	if _, err := h.Register(owner, secure); err != nil {
		t.Fatal(err)
	}
	for op, err := range touch(stranger) {
		wantStatus(t, err, codes.PermissionDenied, op+": orders/1 has an identity")
	}
	if i := f.last(t); i == nil || !i.MutualTLS || i.Health.String() != "healthy" {
		t.Errorf("the instance is now %+v", i)
	}
	if _, err := h.Deregister(owner, &sidecarv1.DeregisterRequest{Sender: sender, Instance: instance}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Register(stranger, registration()); err != nil {
		t.Errorf("in the clear: %v", err)
	}
	for op, err := range touch(stranger) {
		if err != nil {
			t.Errorf("in the clear: %s: %v", op, err)
		}
	}
}

// refusing is an authority that signs nothing: the tests are about who is let so far.
type refusing struct{ Authority }

var errSigned = errors.New("would be signed")

func (refusing) TrustDomain() string { return "mesh.example" }

func (refusing) Issue(time.Time, *ecdsa.PublicKey, identity.ID) (*identity.Issued, error) {
	return nil, errSigned
}

func newCertificates(log *slog.Logger, now time.Time) *certificates {
	return &certificates{authority: refusing{}, now: func() time.Time { return now }, log: log}
}

func TestWhoMayNotHaveACertificateTakesNothingFromThoseWhoMay(t *testing.T) {
	c := newCertificates(slog.New(slog.DiscardHandler), time.Unix(1000, 0))
	ask := func(who Caller, service string) identity.Reason {
		_, _, err := c.issue(who, service, nil) // an empty request is refused after the rate
		return identity.ReasonOf(err)
	}
	for i := range 3 * allBurst {
		if got := ask(Caller{Remote: "192.0.2.9"}, "payments"); got != identity.ReasonUnauthenticated {
			t.Fatalf("a stranger: %s", got)
		}
		if got := ask(certificateOf("web"), fmt.Sprintf("payments-%d", i)); got != identity.ReasonNotAllowed {
			t.Fatalf("for another service: %s", got)
		}
	}
	// With one service's certificate, from as many addresses as one likes.
	for i := range 3 * allBurst {
		web := certificateOf("web")
		web.Remote = fmt.Sprintf("2001:db8::%x", i)
		ask(web, "web")
	}
	if got := ask(certificateOf("web"), "web"); got != identity.ReasonRate {
		t.Errorf("who asks in a loop is told %q", got)
	}
	for _, who := range []Caller{certificateOf("payments"), {Means: ByMeshToken, Remote: "192.0.2.1"}} {
		if got := ask(who, "payments"); got == identity.ReasonRate || got == identity.ReasonUnauthenticated || got == identity.ReasonNotAllowed {
			t.Errorf("%+v is refused: %s", who, got)
		}
	}
}

func TestAskersBeyondTheBoundAreForgottenManyAtATime(t *testing.T) {
	var b buckets
	now := time.Unix(1000, 0)
	for i := range maxAskers {
		b.of(now, fmt.Sprint(i), askBurst, askPerSecond)
	}
	b.of(now, "one more", askBurst, askPerSecond)
	if n, want := len(b), maxAskers-maxAskers/4+1; n != want {
		t.Errorf("%d are kept, want %d", n, want)
	}
}

func TestRefusalsOfCertificatesDoNotFillTheLog(t *testing.T) {
	var b bytes.Buffer
	f := start(t)
	f.service.certificates.authority, f.service.certificates.log = refusing{}, slog.New(slog.NewTextHandler(&b, nil))
	f.service.certificates.now = func() time.Time { return time.Unix(1000, 0) }
	h := &handler{Service: f.service}
	for range 1000 {
		_, err := h.RequestCertificate(as(t, Caller{Remote: "192.0.2.9"}), &sidecarv1.CertificateRequest{Sender: registration().Sender})
		if err == nil {
			t.Fatal("a stranger has a certificate")
		}
	}
	if n := strings.Count(b.String(), "\n"); n != maxRefusalLines {
		t.Errorf("%d lines, want %d", n, maxRefusalLines)
	}
	if _, refused := f.service.Certificates(); refused[identity.ReasonUnauthenticated] != 1000 {
		t.Errorf("counted %v", refused)
	}
}

func TestACallerCannotInventNodesToOpenStreamsWithoutEnd(t *testing.T) {
	for _, who := range []Caller{
		certificateOf("web"), {Remote: "192.0.2.9"}, {Means: ByMeshToken, Remote: "192.0.2.9"},
		{Means: ByBootstrapToken, Token: identity.TokenClaims{ID: "t", Services: []string{"web"}}, Remote: "192.0.2.9"},
	} {
		var s streams
		n := 0
		for ; n < 4096 && s.enter(placeOf(uploadTap, who, fmt.Sprintf("node-%d", n))) == nil; n++ {
		}
		if n != maxCallerStreams || s.open(uploadTap) != n {
			t.Errorf("%+v has %d streams, %d are open, want %d", who, n, s.open(uploadTap), maxCallerStreams)
		}
		other := placeOf(uploadTap, certificateOf("orders"), "node-0")
		for range maxNodeStreams {
			if err := s.enter(other); err != nil {
				t.Errorf("another caller, even under a node name that is taken: %v", err)
			}
		}
		for i := range n {
			s.leave(placeOf(uploadTap, who, fmt.Sprintf("node-%d", i)))
		}
		for range maxNodeStreams {
			s.leave(other)
		}
		if len(s.counts) != 0 {
			t.Errorf("left behind: %v", s.counts)
		}
	}
}
