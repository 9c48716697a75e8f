// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/broadcast"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

// CertificatesConfig says whose certificates are kept.
type CertificatesConfig struct {
	Service string
	// TrustDomain is that of the control plane and the identity; empty takes the
	// control plane's word, for a connection that needs no TLS.
	TrustDomain string
	// RootFile holds the roots in PEM that the control plane is checked with, besides
	// those that it tells of later; read for each connection.
	RootFile string
	Logger   *slog.Logger
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// The waits after a failure; 0 means 1 s and 5 min.
	MinBackoff, MaxBackoff time.Duration
}

// Certificates keeps the identity of a sidecar. The private key is made here, anew
// for each certificate, and is in this process's memory only: it is never written,
// sent, logged or shown, so that a sidecar that restarts has to show its token, or
// that it is on the control plane's host, again.
type Certificates struct {
	// Set once.
	config CertificatesConfig
	log    *slog.Logger
	now    func() time.Time

	renewal renewal // of run's goroutine

	mu sync.Mutex
	// Guarded by mu.
	credentials *identity.Credentials // nil until there are any
	shown       *tls.Certificate      // the same, for the connection to the control plane
	roots       [][]byte              // DER, as the control plane told last
	domain      string                // its trust domain
	watched     bool                  // roots come from a stream that is open
	status      CertificateStatus

	changes broadcast.Signal
}

var _ identity.Source = (*Certificates)(nil)

// CertificateStatus is what may be known of an identity.
type CertificateStatus struct {
	Identity            string    `json:",omitempty"`
	Serial              string    `json:",omitempty"` // hexadecimal
	NotBefore, NotAfter time.Time `json:",omitzero"`
	// RenewAt is when the next certificate is asked for.
	RenewAt   time.Time `json:",omitzero"`
	Roots     int       // in the trust bundle
	Issued    uint64
	Failed    uint64
	LastError string `json:",omitempty"` // empty after a success
}

// NewCertificates makes the keeper; an agent's Run makes it work.
func NewCertificates(c CertificatesConfig) *Certificates {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	r := renewal{min: c.MinBackoff, max: c.MaxBackoff, chance: func(d time.Duration) time.Duration { return rand.N(d + 1) }}
	if r.min == 0 {
		r.min = certificateMinWait
	}
	if r.max == 0 {
		r.max = certificateMaxWait
	}
	return &Certificates{
		config: c, log: c.Logger, now: c.Now, renewal: r, domain: c.TrustDomain,
	}
}

// Credentials implements identity.Source.
func (c *Certificates) Credentials() *identity.Credentials {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.credentials
}

// Changes implements identity.Source.
func (c *Certificates) Changes() (changed <-chan struct{}, stop func()) { return c.changes.Subscribe() }

// Status is a copy.
func (c *Certificates) Status() CertificateStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Roots = len(c.roots)
	return s
}

// ClientTLS is what the connection to the control plane is made with: TLS 1.3, the
// current certificate while it is valid, and only a control plane of the trust
// domain at the other end.
func (c *Certificates) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		// The other end is known by its SPIFFE ID, not by its host name: VerifyConnection
		// does all that is skipped here, and more.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection:   c.verifyControlPlane,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.shown == nil || c.now().After(c.shown.Leaf.NotAfter) {
				return &tls.Certificate{}, nil // the token has to do
			}
			return c.shown, nil
		},
	}
}

func (c *Certificates) verifyControlPlane(s tls.ConnectionState) error {
	pool := x509.NewCertPool()
	c.mu.Lock()
	roots, domain := c.roots, c.domain
	c.mu.Unlock()
	for _, der := range roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return err // setBundle has parsed it before
		}
		pool.AddCert(root)
	}
	if c.config.RootFile != "" {
		data, err := os.ReadFile(c.config.RootFile)
		if err != nil {
			return fmt.Errorf("trust bundle: %w", err)
		}
		list, err := identity.DecodeCertificates(data)
		if err != nil {
			return fmt.Errorf("trust bundle %s: %w", c.config.RootFile, err)
		}
		for _, root := range list {
			pool.AddCert(root)
		}
	}
	id, err := identity.VerifyPeer(c.now(), s.PeerCertificates, pool, domain)
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	if want := identity.ControlPlaneID(domain); id != want {
		return fmt.Errorf("control plane: its certificate is that of %s, not of %s", id, want)
	}
	return nil
}

// run keeps the certificate and the bundle until ctx ends.
func (c *Certificates) run(ctx context.Context, client sidecarv1.SidecarServiceClient, sender *sidecarv1.Sender) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { c.watch(ctx, client, sender) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := c.ask(ctx, client, sender)
		if ctx.Err() != nil {
			return
		}
		now := c.now()
		if err != nil {
			c.renewal.failed(now)
		}
		wait := c.renewal.wait(now)
		c.note(err, now.Add(wait))
		timer.Reset(wait)
	}
}

// note shows what came of a request.
func (c *Certificates) note(err error, next time.Time) {
	c.mu.Lock()
	c.status.RenewAt = next
	s, before := c.status, c.status.LastError
	if err != nil {
		c.status.Failed++
		c.status.LastError = err.Error()
	} else {
		c.status.LastError = ""
	}
	c.mu.Unlock()
	switch {
	case err == nil:
		c.log.Info("certificate", "identity", s.Identity, "serial", s.Serial, "until", s.NotAfter, "renew", next)
	case status.Code(err) == codes.Unimplemented:
		if before != err.Error() {
			c.log.Info("no identity: the control plane is no certificate authority")
		}
	case s.NotAfter.IsZero():
		c.log.Warn("no certificate yet", "error", err, "retry", next)
	default:
		c.log.Warn("certificate not renewed; the old one serves on", "until", s.NotAfter, "error", err, "retry", next)
	}
}

// askLimit bounds one request: the control plane answers in milliseconds.
const askLimit = 10 * time.Second

// ask makes a key and gets a certificate for it.
func (c *Certificates) ask(ctx context.Context, client sidecarv1.SidecarServiceClient, sender *sidecarv1.Sender) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	key, err := identity.NewKey()
	if err != nil {
		return err
	}
	// No name: the control plane knows the identity, and the trust domain better.
	request, err := identity.NewRequest(key, identity.ID{})
	if err != nil {
		return err
	}
	answer, err := client.RequestCertificate(ctx, &sidecarv1.CertificateRequest{Sender: sender, SigningRequest: request}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	return c.take(key, answer)
}

// maxAnswerCertificates bounds what is read of an answer.
const maxAnswerCertificates = 64

// take checks an answer and puts it into force.
func (c *Certificates) take(key *ecdsa.PrivateKey, answer *sidecarv1.CertificateResponse) error {
	now := c.now()
	chain, err := parseAll(answer.GetChain())
	if err != nil {
		return fmt.Errorf("answer: chain: %w", err)
	}
	roots, err := parseAll(answer.GetTrustBundle().GetRoots())
	if err != nil {
		return fmt.Errorf("answer: trust bundle: %w", err)
	}
	domain := answer.GetTrustBundle().GetTrustDomain()
	if want := c.config.TrustDomain; want != "" && domain != want {
		return fmt.Errorf("answer: trust domain %q, want %q (--trust-domain)", domain, want)
	}
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	id, err := identity.VerifyPeer(now, chain, pool, domain)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if want := identity.ServiceID(domain, c.config.Service); id != want {
		return fmt.Errorf("answer: certificate of %s, want %s", id, want)
	}
	leaf := chain[0]
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("answer: the certificate is for another key")
	}
	encoded, err := identity.EncodeKey(key)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.watched { // a stream knows better what is the latest
		c.roots, c.domain = answer.GetTrustBundle().GetRoots(), domain
	}
	c.shown = &tls.Certificate{Certificate: answer.GetChain(), PrivateKey: key, Leaf: leaf}
	c.credentials = &identity.Credentials{
		CertificateChain: identity.EncodeCertificates(answer.GetChain()...), PrivateKey: encoded,
		TrustBundle: identity.EncodeCertificates(c.roots...), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Identity: id,
	}
	c.status.Identity, c.status.Serial = id.String(), fmt.Sprintf("%x", leaf.SerialNumber)
	c.status.NotBefore, c.status.NotAfter = leaf.NotBefore, leaf.NotAfter
	c.status.Issued++
	c.renewal.issued(now, leaf.NotAfter)
	c.changes.Send()
	return nil
}

func parseAll(list [][]byte) ([]*x509.Certificate, error) {
	if len(list) == 0 || len(list) > maxAnswerCertificates {
		return nil, fmt.Errorf("%d certificates, want 1 to %d", len(list), maxAnswerCertificates)
	}
	out := make([]*x509.Certificate, len(list))
	for i, der := range list {
		var err error
		if out[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
	}
	return out, nil
}

// watch follows the trust bundle until ctx ends.
func (c *Certificates) watch(ctx context.Context, client sidecarv1.SidecarServiceClient, sender *sidecarv1.Sender) {
	backoff := grpcdial.Backoff{Min: c.config.MinBackoff, Max: c.config.MaxBackoff}
	for {
		err := c.follow(ctx, client, sender, backoff.Reset)
		c.mu.Lock()
		c.watched = false
		c.mu.Unlock()
		wait := backoff.Next()
		if status.Code(err) == codes.Unimplemented {
			wait = c.renewal.max
		}
		c.log.Debug("the stream of the trust bundle ended", "error", err, "retry", wait)
		if !pause(ctx, wait) {
			return
		}
	}
}

func (c *Certificates) follow(ctx context.Context, client sidecarv1.SidecarServiceClient, sender *sidecarv1.Sender, works func()) error {
	stream, err := client.WatchTrustBundle(ctx, &sidecarv1.WatchTrustBundleRequest{Sender: sender}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		b, err := stream.Recv()
		if err != nil {
			return err
		}
		works()
		if err := c.setBundle(b); err != nil {
			c.log.Warn("trust bundle not taken; the old one is in force", "error", err)
		}
	}
}

// setBundle puts a new bundle into force.
func (c *Certificates) setBundle(b *sidecarv1.TrustBundle) error {
	if _, err := parseAll(b.GetRoots()); err != nil {
		return err
	}
	if want := c.config.TrustDomain; want != "" && b.GetTrustDomain() != want {
		return fmt.Errorf("of trust domain %q, want %q", b.GetTrustDomain(), want)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = true
	bundle := identity.EncodeCertificates(b.GetRoots()...)
	c.roots, c.domain = b.GetRoots(), b.GetTrustDomain()
	if c.credentials == nil || string(c.credentials.TrustBundle) == string(bundle) {
		return nil
	}
	next := *c.credentials
	next.TrustBundle = bundle
	c.credentials = &next
	c.changes.Send()
	return nil
}
