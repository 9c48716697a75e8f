// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

// Means is how a caller is known.
type Means string

// The means. A caller that is on this host and shows nothing is taken at its word
// where the port asks for no credentials.
const (
	ByCertificate    Means = "certificate"
	ByBootstrapToken Means = "bootstrap-token"
	ByMeshToken      Means = "mesh-token"
	ByHost           Means = "host"
)

// Caller is who makes a call, as the transport knows it. The zero Caller is
// somebody unknown on a port that is open to all.
type Caller struct {
	Means   Means
	Service string               // of a certificate
	Token   identity.TokenClaims // of a bootstrap token
	Remote  string               // address, without the port
}

// Allows says whether the caller may act for a service. Somebody unknown may, where
// the port is open to all, for what has no identity: see mayTouch.
func (c Caller) Allows(service string) bool {
	switch c.Means {
	case ByCertificate:
		return c.Service == service
	case ByBootstrapToken:
		return c.Token.Allows(service)
	default:
		return true
	}
}

// account is whose share of bounded things the caller uses up. Somebody unknown has
// that of its address; a certificate and a token have one at each address.
func (c Caller) account() string {
	return strings.Join([]string{string(c.Means), c.Service, c.Token.ID, c.Remote}, "\x00")
}

// errStranger is what callers without credentials are told.
var errStranger = errors.New("a certificate, a bootstrap token or the mesh token is wanted from another host")

// who names the caller in messages.
func (c Caller) who() string {
	switch c.Means {
	case ByCertificate:
		return "the caller's certificate is of service " + c.Service
	case ByBootstrapToken:
		return "bootstrap token " + c.Token.ID + " is good for " + strings.Join(c.Token.Services, ", ")
	default:
		return "the caller is known by " + string(c.Means)
	}
}

type callerKey struct{}

// CallerOf is the caller of a call on a server with Authenticate.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Tokens checks bootstrap tokens; *identity.Authority does.
type Tokens interface {
	CheckToken(now time.Time, token string) (identity.TokenClaims, error)
}

// Authentication says whom a server lets in.
type Authentication struct {
	// MeshToken is good for every service. Empty: there is none.
	MeshToken string
	// Tokens checks bootstrap tokens; nil: there are none.
	Tokens Tokens
	// TrustDomain is that of client certificates, which the TLS handshake has
	// verified. Empty: certificates are not looked at.
	TrustDomain string
	// Open lets in callers that show nothing.
	Open bool
	// Refused is told of callers that are not let in, and why; nil for nobody.
	Refused func(remote string, reason identity.Reason, err error)
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
}

// Authenticate is the server option that lets in whom a says, for every service
// on the server, xDS included, before a message of the caller is read. It takes
// the server's one InTapHandle. A certificate comes before a token.
func Authenticate(a Authentication) grpc.ServerOption {
	if a.Now == nil {
		a.Now = time.Now
	}
	if a.Refused == nil {
		a.Refused = func(string, identity.Reason, error) {}
	}
	want := sha256.Sum256([]byte(a.MeshToken)) // equal lengths for a comparison in constant time
	return grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (context.Context, error) {
		caller := Caller{}
		p, _ := peer.FromContext(ctx)
		if p != nil && p.Addr != nil {
			caller.Remote = host(p.Addr)
		}
		reason, err := a.identify(&caller, p, info.Header.Get("authorization"), want)
		if err != nil {
			a.Refused(caller.Remote, reason, err)
			return nil, status.Error(codes.Unauthenticated, err.Error())
		}
		return context.WithValue(ctx, callerKey{}, caller), nil
	})
}

// identify fills in how the caller is known.
func (a *Authentication) identify(c *Caller, p *peer.Peer, authorization []string, want [sha256.Size]byte) (identity.Reason, error) {
	if leaf := peerCertificate(p); leaf != nil && a.TrustDomain != "" {
		id, err := identity.CertificateID(a.Now(), leaf, a.TrustDomain)
		if err != nil {
			return identity.ReasonOf(err), err
		}
		service, ok := id.Service()
		if !ok {
			return identity.ReasonIdentity, fmt.Errorf("certificate of %s: is not that of a service", id)
		}
		c.Means, c.Service = ByCertificate, service
		return "", nil
	}
	reason, err := a.readToken(c, authorization, want)
	if err != nil && a.Open { // whatever it shows, it needs nothing
		if p != nil && local(p.Addr) {
			c.Means = ByHost
		}
		return "", nil
	}
	return reason, err
}

// readToken fills in what a bearer token says of the caller.
func (a *Authentication) readToken(c *Caller, authorization []string, want [sha256.Size]byte) (identity.Reason, error) {
	if len(authorization) != 1 {
		return identity.ReasonMissing, errNoCredentials(a.TrustDomain != "")
	}
	scheme, token, _ := strings.Cut(authorization[0], " ")
	if !strings.EqualFold(scheme, "bearer") {
		return identity.ReasonToken, errWrongToken
	}
	if got := sha256.Sum256([]byte(token)); a.MeshToken != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
		c.Means = ByMeshToken
		return "", nil
	}
	if a.Tokens == nil {
		return identity.ReasonToken, errWrongToken
	}
	claims, err := a.Tokens.CheckToken(a.Now(), token)
	if err == identity.ErrNotToken { //nolint:errorlint // returned as it is
		err = errWrongToken
	}
	if err != nil {
		return identity.ReasonToken, err
	}
	c.Means, c.Token = ByBootstrapToken, claims
	return "", nil
}

// local says whether an address is on this host.
func local(a net.Addr) bool {
	switch x := a.(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return x.IP.IsLoopback()
	}
	return false
}

func host(a net.Addr) string {
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.Network()
	}
	return h
}

// AllowsNode says whether the caller may call itself by a node id. Ids of our
// sidecars, SERVICE~INSTANCE, are for that service only.
func (c Caller) AllowsNode(node string) bool {
	service, _, named := strings.Cut(node, "~")
	return !named || c.Allows(service)
}

// allowed refuses a caller that speaks for a service, or as a node, which is not
// its own.
func allowed(ctx context.Context, op, service, node string) error {
	c := CallerOf(ctx)
	if !c.Allows(service) {
		return status.Errorf(codes.PermissionDenied, "%s: service %q: %s", op, service, c.who())
	}
	if !c.AllowsNode(node) {
		return status.Errorf(codes.PermissionDenied, "%s: sender.node %q: %s", op, node, c.who())
	}
	return nil
}
