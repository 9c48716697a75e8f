// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrRotating: a root is announced already and does not sign yet.
var ErrRotating = errors.New("a rotation is under way")

// ErrGiven: the authority is an outside one and rotates by its files.
var ErrGiven = errors.New("the authority is given from outside: it rotates when its files are replaced")

// Rotate announces a new root of the authority's own, which signs after the
// overlap; 0 is the configured one. An overlap below the life of certificates cuts
// off sidecars that are out of reach meanwhile.
func (a *Authority) Rotate(now time.Time, overlap time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.state.root(Announced); r != nil {
		return fmt.Errorf("%w: %s signs at %s", ErrRotating, r, r.SignsAt.UTC().Format(time.RFC3339))
	}
	if len(a.state.root(Signing).Key) == 0 {
		return ErrGiven
	}
	return a.announceLocked(now, overlap)
}

func (a *Authority) announceLocked(now time.Time, overlap time.Duration) error {
	if overlap == 0 {
		overlap = a.config.Overlap
	}
	pair, err := newRoot(now, a.state.TrustDomain)
	if err != nil {
		return err
	}
	s := a.state.clone()
	s.Roots = append(s.Roots, Root{
		Certificate: pair.Certificate, Key: pair.Key, Phase: Announced, AnnouncedAt: now, SignsAt: now.Add(overlap),
	})
	return a.commitLocked(s, a.issuer, nil)
}

// Replace takes an outside authority's new files. Below the root that signs, the
// new issuer signs at once; another root is announced first.
func (a *Authority) Replace(now time.Time, given *Issuer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.state.clone()
	if string(s.root(Signing).Certificate) == string(given.root) {
		if len(s.root(Signing).Key) > 0 {
			return errors.New("authority: the given root is the authority's own")
		}
		if r := s.root(Announced); r != nil { // the files went back
			s.remove(r.Certificate)
		}
		return a.commitLocked(s, given, nil)
	}
	if r := s.root(Announced); r != nil && string(r.Certificate) != string(given.root) {
		s.remove(r.Certificate)
	}
	switch r := s.find(given.root); {
	case r == nil:
		s.Roots = append(s.Roots, Root{
			Certificate: given.root, Phase: Announced, AnnouncedAt: now, SignsAt: now.Add(a.config.Overlap),
		})
	case r.Phase == Retiring: // everybody trusts it still
		r.Phase, r.SignsAt, r.RetiredAt = Announced, now, time.Time{}
	}
	return a.commitLocked(s, a.issuer, given)
}

// Step does what is due: an announced root begins to sign, a retired one whose
// certificates have all expired leaves the bundle, the intermediate is renewed at
// half of its life, and a root near its end gets a successor. It returns when to
// come again. After an error the state is as it was.
func (a *Authority) Step(now time.Time) (next time.Time, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, issuer, given := a.state.clone(), a.issuer, a.next
	changed := false
	if r := s.root(Announced); r != nil && !now.Before(r.SignsAt) {
		if err := s.promote(now, r.Certificate); err != nil {
			return now.Add(stepRetry), err
		}
		issuer, given, changed = given, nil, true
	}
	for _, r := range slices.Clone(s.Roots) {
		if r.Phase == Retiring && now.After(r.IssuedUntil) {
			s.remove(r.Certificate)
			changed = true
		}
	}
	if own := len(s.root(Signing).Key) > 0; own && (issuer == nil || halfLived(now, issuer.certificate)) {
		if issuer != nil { // promote has made one already
			if err := s.renewIntermediate(now); err != nil {
				return now.Add(stepRetry), err
			}
		}
		if issuer, err = s.own(); err != nil {
			return now.Add(stepRetry), err
		}
		changed = true
	}
	if changed {
		if err := a.commitLocked(s, issuer, given); err != nil {
			return now.Add(stepRetry), err
		}
	}
	if a.rootNearEnd(now) {
		if err := a.announceLocked(now, 0); err != nil {
			return now.Add(stepRetry), err
		}
	}
	return a.nextStep(now), nil
}

const (
	stepRetry = 10 * time.Second
	stepMax   = time.Hour
)

// halfLived: half of an intermediate's life is over. One that its root's end cut
// short is not renewed for that: it would be no longer.
func halfLived(now time.Time, c *x509.Certificate) bool {
	return now.After(c.NotAfter.Add(-intermediateLife / 2))
}

// rootNearEnd: the own root has less than a fifth of its life left.
func (a *Authority) rootNearEnd(now time.Time) bool {
	r := a.state.root(Signing)
	if len(r.Key) == 0 || a.state.root(Announced) != nil {
		return false
	}
	c, err := x509.ParseCertificate(r.Certificate)
	return err == nil && now.After(c.NotAfter.Add(-rootLife/5))
}

func (a *Authority) nextStep(now time.Time) time.Time {
	next := now.Add(stepMax)
	for _, r := range a.state.Roots {
		switch r.Phase {
		case Announced:
			next = earlier(next, r.SignsAt)
		case Retiring:
			next = earlier(next, r.IssuedUntil.Add(time.Second))
		}
	}
	return next
}

// promote makes a root the signing one, with an intermediate where it is our own.
func (s *State) promote(now time.Time, certificate []byte) error {
	if old := s.root(Signing); old != nil {
		old.Phase, old.RetiredAt = Retiring, now
	}
	r := s.find(certificate)
	r.Phase, r.SignsAt, r.RetiredAt = Signing, now, time.Time{}
	if len(r.Key) == 0 {
		s.Intermediate = nil
		return nil
	}
	return s.renewIntermediate(now)
}

func (s *State) remove(certificate []byte) {
	s.Roots = slices.DeleteFunc(s.Roots, func(r Root) bool { return string(r.Certificate) == string(certificate) })
}

// RootStatus is a root without its key.
type RootStatus struct {
	Fingerprint string    `json:"fingerprint"` // SHA-256
	Subject     string    `json:"subject"`
	Phase       Phase     `json:"phase"`
	Given       bool      `json:"given"` // from outside
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	AnnouncedAt time.Time `json:"announcedAt"`
	SignsAt     time.Time `json:"signsAt"`
	RetiredAt   time.Time `json:"retiredAt,omitzero"`
	// LeavesAt is when a retiring root leaves the bundle.
	LeavesAt time.Time `json:"leavesAt,omitzero"`
}

// Status is what may be known of an authority.
type Status struct {
	TrustDomain    string       `json:"trustDomain"`
	Given          bool         `json:"given"` // it is an outside one
	LeafSeconds    float64      `json:"leafSeconds"`
	OverlapSeconds float64      `json:"overlapSeconds"`
	IssuerSubject  string       `json:"issuerSubject"`
	IssuerNotAfter time.Time    `json:"issuerNotAfter"`
	Roots          []RootStatus `json:"roots"`
	Bundle         string       `json:"bundle"` // PEM
	Warning        string       `json:"warning,omitempty"`
}

// Status is a copy without any secret.
func (a *Authority) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := Status{
		TrustDomain: a.config.TrustDomain, Given: len(a.state.root(Signing).Key) == 0,
		LeafSeconds: a.config.LeafLife.Seconds(), OverlapSeconds: a.config.Overlap.Seconds(),
		IssuerSubject: a.issuer.certificate.Subject.String(), IssuerNotAfter: a.issuer.certificate.NotAfter,
		Bundle: string(a.bundle.PEM()), Warning: a.warning,
	}
	for _, r := range a.state.Roots {
		c, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			continue // commit has parsed it before
		}
		rs := RootStatus{
			Fingerprint: r.Fingerprint(), Subject: c.Subject.String(), Phase: r.Phase, Given: len(r.Key) == 0,
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, AnnouncedAt: r.AnnouncedAt.UTC(), SignsAt: r.SignsAt.UTC(),
		}
		if r.Phase == Retiring {
			rs.RetiredAt, rs.LeavesAt = r.RetiredAt.UTC(), r.IssuedUntil.UTC()
		}
		out.Roots = append(out.Roots, rs)
	}
	return out
}
