// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Shared are secrets as contexts use them, parsed once for all: in a mesh each of a
// thousand clusters has the sidecar's own certificate and roots. It holds all that it
// was asked for; who has other secrets starts a new one. It is not for several
// goroutines.
type Shared struct {
	pairs   map[inline]*parsedPair
	bundles map[inline]*parsedBundle
}

// inline is bytes of a resource by their place: resources do not change.
type inline struct {
	at *byte
	n  int
}

type parsedPair struct {
	key  inline // of the private key that it was checked with
	tls  *tls.Certificate
	info CertificateInfo
}

type parsedBundle struct {
	list  []*x509.Certificate
	pool  *x509.CertPool
	infos []CertificateInfo
}

func inlineOf(d *resource.DataSource) inline { return inline{&d.Inline[0], len(d.Inline)} }

// pair is certificate; one that is inline in a secret is parsed once for all contexts.
func (l *loader) pair(r *resource.TLSCertificate, secret string) (*tls.Certificate, error) {
	if l.shared == nil || secret == "" || len(r.Chain.Inline) == 0 || len(r.Key.Inline) == 0 || !r.OCSP.Empty() {
		return l.certificate(r, secret)
	}
	chain, key := inlineOf(&r.Chain), inlineOf(&r.Key)
	if p := l.shared.pairs[chain]; p != nil && p.key == key {
		l.certs = append(l.certs, p.info)
		return p.tls, nil
	}
	t, err := l.certificate(r, secret)
	if err != nil {
		return nil, err
	}
	if l.shared.pairs == nil {
		l.shared.pairs = map[inline]*parsedPair{}
	}
	l.shared.pairs[chain] = &parsedPair{key: key, tls: t, info: l.certs[len(l.certs)-1]}
	return t, nil
}

// bundle is authorities and their pool, likewise.
func (l *loader) bundle(d *resource.DataSource, secret string) ([]*x509.Certificate, *x509.CertPool, error) {
	share := l.shared != nil && secret != "" && len(d.Inline) > 0
	if share {
		if b := l.shared.bundles[inlineOf(d)]; b != nil {
			l.certs = append(l.certs, b.infos...)
			return b.list, b.pool, nil
		}
	}
	from := len(l.certs)
	list, err := l.authorities(d, secret)
	if err != nil {
		return nil, nil, err
	}
	b := &parsedBundle{list: list, pool: pool(list), infos: l.certs[from:len(l.certs):len(l.certs)]}
	if share {
		if l.shared.bundles == nil {
			l.shared.bundles = map[inline]*parsedBundle{}
		}
		l.shared.bundles[inlineOf(d)] = b
	}
	return b.list, b.pool, nil
}
