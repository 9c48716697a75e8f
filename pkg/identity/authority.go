// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/broadcast"
)

// The bounds of Config.LeafLife.
const (
	DefaultLeafLife = 24 * time.Hour
	MinLeafLife     = 2 * time.Second
	MaxLeafLife     = 30 * 24 * time.Hour
)

// Config says how an authority behaves.
type Config struct {
	TrustDomain string        // DefaultTrustDomain when empty
	LeafLife    time.Duration // of certificates for sidecars; 0 is the default
	// Overlap is how long a new root is in the bundle before it signs. 0 is LeafLife:
	// whoever holds a valid certificate has then got it, and the bundle with it,
	// since the root was announced.
	Overlap time.Duration
	// Given is an outside authority; nil makes the mesh its own.
	Given *Issuer
	// Save makes a state durable before it takes effect. Required.
	Save func(State) error
}

func (c *Config) setDefaults() error {
	if c.TrustDomain == "" {
		c.TrustDomain = DefaultTrustDomain
	}
	if c.LeafLife == 0 {
		c.LeafLife = DefaultLeafLife
	}
	if c.Overlap == 0 {
		c.Overlap = c.LeafLife
	}
	if c.Save == nil {
		return errors.New("authority: Save is required")
	}
	if c.LeafLife < MinLeafLife || c.LeafLife > MaxLeafLife {
		return fmt.Errorf("authority: life of certificates %v: want %v to %v", c.LeafLife, MinLeafLife, MaxLeafLife)
	}
	if c.Overlap < 0 {
		return fmt.Errorf("authority: overlap %v: must not be negative", c.Overlap)
	}
	return CheckTrustDomain(c.TrustDomain)
}

// Bundle is the roots that peers are checked with, in one state of the authority.
type Bundle struct {
	Roots [][]byte // DER
	Pool  *x509.CertPool
}

// PEM is the bundle as a file holds it.
func (b *Bundle) PEM() []byte { return EncodeCertificates(b.Roots...) }

// Authority vouches for identities.
type Authority struct {
	config Config // set once

	mu sync.Mutex
	// Guarded by mu.
	state  State
	issuer *Issuer // of the signing root
	next   *Issuer // of the announced root, where that is given from outside
	bundle *Bundle // replaced whole when the roots change
	// warning is what was done at the start that is better avoided.
	warning string

	changes broadcast.Signal // of the bundle
}

// Open continues a saved authority, or makes one when saved is nil.
func Open(now time.Time, saved *State, c Config) (*Authority, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	a := &Authority{config: c}
	if saved == nil {
		return a, a.create(now)
	}
	if saved.TrustDomain != c.TrustDomain {
		return nil, fmt.Errorf("authority: is that of trust domain %s, not %s: name that one, or remove its folder and with it every identity", saved.TrustDomain, c.TrustDomain)
	}
	a.state = saved.clone()
	if err := a.resume(now); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	// A disk that is full must not keep what is saved from serving.
	if _, err := a.Step(now); err != nil {
		a.warning = fmt.Sprintf("the authority stays as it was saved: %v", err)
	}
	return a, nil
}

// create makes the first root, or takes the given one: nobody has to be told of it
// before it signs.
func (a *Authority) create(now time.Time) error {
	s := State{Version: stateVersion, TrustDomain: a.config.TrustDomain, TokenKey: make([]byte, tokenKeyBytes)}
	if _, err := rand.Read(s.TokenKey); err != nil {
		return err
	}
	r := Root{Phase: Signing, AnnouncedAt: now, SignsAt: now}
	if g := a.config.Given; g != nil {
		r.Certificate = g.root
		s.Roots = []Root{r}
		return a.commit(s, g, nil)
	}
	pair, err := newRoot(now, s.TrustDomain)
	if err != nil {
		return err
	}
	r.Certificate, r.Key = pair.Certificate, pair.Key
	s.Roots = []Root{r}
	if err := s.renewIntermediate(now); err != nil {
		return err
	}
	i, err := s.own()
	if err != nil {
		return err
	}
	return a.commit(s, i, nil)
}

// resume finds who signs after a restart. Where the signing root's key was an
// outside one that is not given any more, its successor signs at once: peers that
// have not heard of it yet refuse it, which is said, but nobody at all could sign
// otherwise.
func (a *Authority) resume(now time.Time) error {
	s, given := a.state.clone(), a.config.Given
	signing := s.root(Signing)
	var issuer *Issuer
	var err error
	if len(signing.Key) > 0 {
		if issuer, err = s.own(); err != nil {
			return err
		}
	} else if given != nil && string(given.root) == string(signing.Certificate) {
		issuer, given = given, nil
	}
	if issuer != nil {
		if err := a.adopt(s, issuer); err != nil {
			return err
		}
		if given != nil {
			return a.Replace(now, given)
		}
		return a.dropLostSuccessor()
	}
	a.warning = "the signing authority's key is gone: its successor signs at once, and peers that do not trust it yet refuse its certificates until they have the new bundle"
	if err := s.succeed(now, given); err != nil {
		return err
	}
	if issuer = given; issuer == nil {
		if issuer, err = s.own(); err != nil {
			return err
		}
	}
	return a.commit(s, issuer, nil)
}

// dropLostSuccessor forgets an announced root from outside whose key is not there
// any more: it never signed.
func (a *Authority) dropLostSuccessor() error {
	a.mu.Lock()
	s := a.state.clone()
	issuer := a.issuer
	a.mu.Unlock()
	r := s.root(Announced)
	if r == nil || len(r.Key) > 0 {
		return nil
	}
	s.remove(r.Certificate)
	return a.commit(s, issuer, nil)
}

// succeed puts a successor in the signing root's place at once.
func (s *State) succeed(now time.Time, given *Issuer) error {
	if r := s.root(Announced); r != nil && (given == nil) != (len(r.Key) > 0) {
		s.remove(r.Certificate)
	}
	var next *Root
	if given != nil {
		next = s.find(given.root)
	} else {
		next = s.root(Announced)
	}
	if next == nil {
		r := Root{AnnouncedAt: now}
		if given != nil {
			r.Certificate = given.root
		} else {
			pair, err := newRoot(now, s.TrustDomain)
			if err != nil {
				return err
			}
			r.Certificate, r.Key = pair.Certificate, pair.Key
		}
		s.Roots = append(s.Roots, r)
		next = &s.Roots[len(s.Roots)-1]
	}
	return s.promote(now, next.Certificate)
}

// commit makes a state durable and then current.
func (a *Authority) commit(s State, issuer, next *Issuer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.commitLocked(s, issuer, next)
}

// adopt makes a state current that was read as it is.
func (a *Authority) adopt(s State, issuer *Issuer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.adoptLocked(s, issuer, nil)
}

func (a *Authority) commitLocked(s State, issuer, next *Issuer) error {
	if err := a.config.Save(s.clone()); err != nil {
		return fmt.Errorf("authority: save: %w", err)
	}
	return a.adoptLocked(s, issuer, next)
}

func (a *Authority) adoptLocked(s State, issuer, next *Issuer) error {
	a.state, a.issuer, a.next = s, issuer, next
	b := &Bundle{Pool: x509.NewCertPool()}
	for _, r := range s.Roots {
		c, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			return fmt.Errorf("authority: %s: %w", r, err)
		}
		b.Roots = append(b.Roots, r.Certificate)
		b.Pool.AddCert(c)
	}
	if a.bundle != nil && string(a.bundle.PEM()) == string(b.PEM()) {
		return nil
	}
	a.bundle = b
	a.changes.Send()
	return nil
}

// Changes receives after each change of the bundle. stop ends it.
func (a *Authority) Changes() (changed <-chan struct{}, stop func()) { return a.changes.Subscribe() }

// Bundle is the current one; it does not change.
func (a *Authority) Bundle() *Bundle {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bundle
}

// TrustDomain is the authority's.
func (a *Authority) TrustDomain() string { return a.config.TrustDomain }

// LeafLife is how long certificates of sidecars live.
func (a *Authority) LeafLife() time.Duration { return a.config.LeafLife }

// Warning is what happened at the start that somebody should know, or empty.
func (a *Authority) Warning() string { return a.warning }

// Issued is a certificate for an identity.
type Issued struct {
	Chain               [][]byte // DER, the identity's own first, the root left out
	Bundle              *Bundle
	Serial              string // hexadecimal
	NotBefore, NotAfter time.Time
}

// Issue signs a certificate for an identity of the trust domain. It lives for
// LeafLife, and not beyond its issuer. The error is a *Refusal.
func (a *Authority) Issue(now time.Time, key *ecdsa.PublicKey, id ID) (*Issued, error) {
	if id.TrustDomain != a.config.TrustDomain {
		return nil, refuse(ReasonNotAllowed, "%s: is of another trust domain than %s", id, a.config.TrustDomain)
	}
	if _, err := ParseID(id.String()); err != nil {
		return nil, refuse(ReasonNames, "%v", err)
	}
	until := now.Add(a.config.LeafLife)
	issuer, bundle, err := a.reserve(now, until)
	if err != nil {
		return nil, err
	}
	until = earlier(until, issuer.certificate.NotAfter)
	serial, err := newSerial()
	if err != nil {
		return nil, refuse(ReasonAuthority, "serial: %v", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-leafBackdate), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{id.url()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.certificate, key, issuer.key)
	if err != nil {
		return nil, refuse(ReasonAuthority, "sign: %v", err)
	}
	return &Issued{
		Chain: append([][]byte{der}, issuer.chain...), Bundle: bundle, Serial: fmt.Sprintf("%x", serial),
		NotBefore: template.NotBefore, NotAfter: until.Truncate(time.Second),
	}, nil
}

// reserve notes, durably, until when the signing root must stay in the bundle, in
// steps so that not each certificate is a write.
func (a *Authority) reserve(now, until time.Time) (*Issuer, *Bundle, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := a.issuer.certificate.NotAfter.Sub(now); left <= 0 {
		return nil, nil, refuse(ReasonAuthority, "the issuer expired at %s", a.issuer.certificate.NotAfter.UTC().Format(time.RFC3339))
	}
	if r := a.state.root(Signing); until.After(r.IssuedUntil) {
		s := a.state.clone()
		s.root(Signing).IssuedUntil = until.Add(a.config.LeafLife / 8)
		if err := a.commitLocked(s, a.issuer, a.next); err != nil {
			return nil, nil, refuse(ReasonAuthority, "%v", err)
		}
	}
	return a.issuer, a.bundle, nil
}
