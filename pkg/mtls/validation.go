// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/certchain"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// verifier decides about certificates of peers. It is immutable but for the cache
// of identities.
type verifier struct {
	res     resource.ValidationContext // merged
	usage   x509.ExtKeyUsage
	roots   *x509.CertPool            // nil: not verified against authorities
	domains map[string]*x509.CertPool // by trust domain; nil: not restricted to SPIFFE IDs
	print   [sha256.Size]byte         // of everything that decides
	known   identities
}

// validation compiles the validation of a context; nil where it has none.
func (l *loader) validation(c *resource.CommonTLS, usage x509.ExtKeyUsage) (*verifier, error) {
	if c.Validation == nil && c.ValidationSecret == "" {
		return nil, nil
	}
	v := &verifier{usage: usage, res: resource.ValidationContext{MaxDepth: -1}} // a secret may be all there is
	if c.Validation != nil {
		v.res = *c.Validation
	}
	if c.ValidationSecret != "" {
		s, err := l.secret(c.ValidationSecret)
		if err != nil {
			return nil, err
		}
		if s.Validation == nil {
			return nil, fmt.Errorf("secret %q is no validation_context", c.ValidationSecret)
		}
		v.res = merged(v.res, s.Validation)
	}
	if err := v.load(l, c.ValidationSecret); err != nil {
		if c.ValidationSecret != "" {
			return nil, fmt.Errorf("secret %q: %w", c.ValidationSecret, err)
		}
		return nil, fmt.Errorf("validation_context: %w", err)
	}
	return v, nil
}

// merged is what CombinedCertificateValidationContext says: fields of the secret
// win, lists are joined.
func merged(a resource.ValidationContext, b *resource.ValidationContext) resource.ValidationContext {
	if !b.TrustedCA.Empty() || b.SystemRoots {
		a.TrustedCA, a.SystemRoots = b.TrustedCA, b.SystemRoots
	}
	a.SANs = slices.Concat(a.SANs, b.SANs)
	a.SPKI = slices.Concat(a.SPKI, b.SPKI)
	a.Hashes = slices.Concat(a.Hashes, b.Hashes)
	a.TrustDomains = slices.Concat(a.TrustDomains, b.TrustDomains)
	a.AllowExpired = a.AllowExpired || b.AllowExpired
	a.AcceptUntrusted = a.AcceptUntrusted || b.AcceptUntrusted
	a.SuppressCAList = a.SuppressCAList || b.SuppressCAList
	if b.MaxDepth >= 0 {
		a.MaxDepth = b.MaxDepth
	}
	return a
}

func (v *verifier) load(l *loader, secret string) error {
	h := sha256.New()
	fmt.Fprintf(h, "%d %+v %x %x %t %t %d\n", v.usage, v.res.SANs, v.res.SPKI, v.res.Hashes, v.res.AllowExpired, v.res.AcceptUntrusted, v.res.MaxDepth)
	switch {
	case v.res.SystemRoots:
		p, err := x509.SystemCertPool()
		if err != nil {
			return fmt.Errorf("system_root_certs: %w", err)
		}
		v.roots = p
		fmt.Fprintln(h, "system")
	case !v.res.TrustedCA.Empty():
		list, roots, err := l.bundle(&v.res.TrustedCA, secret)
		if err != nil {
			return fmt.Errorf("trusted_ca: %w", err)
		}
		v.roots = roots
		for _, c := range list {
			fmt.Fprintf(h, "%x\n", sha256.Sum256(c.Raw))
		}
	}
	for i := range v.res.TrustDomains {
		d := &v.res.TrustDomains[i]
		list, roots, err := l.bundle(&d.Bundle, secret)
		if err != nil {
			return fmt.Errorf("trust_domains[%d]: trust_bundle: %w", i, err)
		}
		if v.domains == nil {
			v.domains = map[string]*x509.CertPool{}
		}
		v.domains[d.Name] = roots
		for _, c := range list {
			fmt.Fprintf(h, "%s %x\n", d.Name, sha256.Sum256(c.Raw))
		}
	}
	h.Sum(v.print[:0])
	if len(v.res.SANs) > 0 && v.roots == nil && v.domains == nil {
		return errors.New("match_typed_subject_alt_names without trusted_ca would accept names that nobody vouches for")
	}
	return nil
}

// verify checks the chain that a peer showed, leaf first, and returns who it is;
// nil where what did not verify is accepted. A resumed session was verified by the
// same rules when it began: only time can have changed since.
func (v *verifier) verify(chain []*x509.Certificate, resumed bool, now time.Time, name string) (*Identity, error) {
	if len(chain) == 0 {
		return nil, refuse(NoCertificate, "the peer showed no certificate")
	}
	id, err := v.known.read(chain[0])
	if err == nil {
		err = v.check(id, chain, resumed, now, name)
	}
	if err != nil {
		if v.res.AcceptUntrusted {
			return nil, nil
		}
		return nil, err
	}
	return id, nil
}

// identity is of a chain that verify has passed. Nil where nobody vouches for it.
func (v *verifier) identity(chain []*x509.Certificate) *Identity {
	if v == nil || len(chain) == 0 || v.res.AcceptUntrusted {
		return nil
	}
	if v.roots == nil && v.domains == nil && len(v.res.SPKI)+len(v.res.Hashes) == 0 {
		return nil
	}
	id, _ := v.known.keep(chain[0])
	return id
}

func (v *verifier) check(id *Identity, chain []*x509.Certificate, resumed bool, now time.Time, name string) error {
	leaf := chain[0]
	if !v.res.AllowExpired {
		switch {
		case now.After(leaf.NotAfter):
			return refuse(Expired, "the certificate has expired on "+leaf.NotAfter.UTC().Format(time.RFC3339))
		case now.Before(leaf.NotBefore):
			return refuse(NotYetValid, "the certificate is valid from "+leaf.NotBefore.UTC().Format(time.RFC3339))
		}
	}
	roots := v.roots
	if v.domains != nil {
		if !id.SPIFFE {
			return refuse(WrongIdentity, "the certificate has no SPIFFE ID")
		}
		if roots = v.domains[id.TrustDomain]; roots == nil {
			return refuse(UnknownCA, "the trust domain is not known")
		}
	}
	if roots != nil && !resumed {
		if err := v.verifyChain(roots, chain, now); err != nil {
			return err
		}
	}
	if err := v.pinned(leaf); err != nil {
		return err
	}
	if len(v.res.SANs) > 0 && !v.accepts(id) {
		return refuse(WrongIdentity, "no subject alternative name of the certificate is accepted")
	}
	if name != "" && !hasName(leaf, name) {
		return refuse(WrongIdentity, "the certificate is not for the server name that was sent")
	}
	return nil
}

func hasName(leaf *x509.Certificate, name string) bool { return leaf.VerifyHostname(name) == nil }

func (v *verifier) verifyChain(roots *x509.CertPool, chain []*x509.Certificate, now time.Time) error {
	o := x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{v.usage}}
	if v.res.AllowExpired && now.After(chain[0].NotAfter) {
		o.CurrentTime = chain[0].NotAfter
	}
	// max_verify_depth counts what is between the leaf and the root, which may be shown too.
	found, err := certchain.Verify(chain, o, max(certchain.MaxLength, v.res.MaxDepth+2))
	if errors.Is(err, certchain.ErrTooLong) {
		return refuse(BadCertificate, err.Error())
	}
	if err != nil {
		return err
	}
	if v.res.MaxDepth >= 0 && !slices.ContainsFunc(found, func(c []*x509.Certificate) bool { return len(c)-2 <= v.res.MaxDepth }) {
		return refuse(BadCertificate, "the certificate chain is longer than max_verify_depth")
	}
	return nil
}

func (v *verifier) pinned(leaf *x509.Certificate) error {
	if len(v.res.SPKI) == 0 && len(v.res.Hashes) == 0 {
		return nil
	}
	key, cert := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw)
	is := func(sum []byte) func([]byte) bool { return func(b []byte) bool { return bytes.Equal(b, sum) } }
	if slices.ContainsFunc(v.res.SPKI, is(key[:])) || slices.ContainsFunc(v.res.Hashes, is(cert[:])) {
		return nil
	}
	return refuse(Pinned, "neither the certificate nor its key is an accepted one")
}

// accepts reports whether any name is what a matcher wants.
func (v *verifier) accepts(id *Identity) bool {
	for i := range v.res.SANs {
		m := &v.res.SANs[i]
		var names []string
		switch m.Kind {
		case resource.SANURI:
			// More than one URI is no identity: nobody can say which one was meant.
			if len(id.URIs) != 1 {
				continue
			}
			names = id.URIs
		case resource.SANDNS:
			names = id.DNS
		case resource.SANEmail:
			names = id.Emails
		case resource.SANIP:
			for _, ip := range id.IPs {
				if m.Match.Kind == resource.MatchExact {
					if want, err := netip.ParseAddr(m.Match.Value); err == nil && want.Unmap() == ip.Unmap() {
						return true
					}
				}
				names = append(names, ip.String())
			}
		}
		for _, n := range names {
			if m.Match.MatchString(n) || m.Kind == resource.SANDNS && wildcard(&m.Match, n) {
				return true
			}
		}
	}
	return false
}

// identities caches what certificates say: the peers of a mesh are few and come
// often. The peers' connections share what it holds.
type identities struct {
	mu sync.Mutex
	m  map[[sha256.Size]byte]*Identity
}

const maxIdentities = 1024

// read is what c says. Nothing of it is kept: anybody may have made it, as large as a
// handshake takes.
func (k *identities) read(c *x509.Certificate) (*Identity, error) {
	k.mu.Lock()
	id := k.m[sha256.Sum256(c.Raw)]
	k.mu.Unlock()
	if id != nil {
		return id, nil
	}
	return identify(c)
}

// keep is read for a certificate that was verified.
func (k *identities) keep(c *x509.Certificate) (*Identity, error) {
	id, err := k.read(c)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	sum := sha256.Sum256(c.Raw)
	if was := k.m[sum]; was != nil {
		return was, nil
	}
	if k.m == nil || len(k.m) >= maxIdentities {
		k.m = map[[sha256.Size]byte]*Identity{}
	}
	k.m[sum] = id
	return id, nil
}
