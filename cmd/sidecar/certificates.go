// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"math"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/admin"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
)

// certificates are what the admin port shows: this sidecar's identity, and what its
// listeners and clusters use beside it. Sets that are alike are one.
func (d *plane) certificates() []admin.CertificateSet {
	var out []admin.CertificateSet
	seen := map[string]bool{}
	add := func(set admin.CertificateSet) {
		if key := setKey(set); !seen[key] {
			seen[key] = true
			out = append(out, set)
		}
	}
	if c := d.credentials(); c != nil {
		chain, err := identity.DecodeCertificates(c.CertificateChain)
		roots, rootsErr := identity.DecodeCertificates(c.TrustBundle)
		if err == nil && rootsErr == nil { // they were encoded here
			add(admin.CertificateSet{CA: inline(roots), Chain: inline(chain)})
		}
	}
	for _, list := range d.proxy.CertificateSets() {
		add(setOf(list))
	}
	return out
}

func inline(list []*x509.Certificate) []admin.Certificate {
	out := make([]admin.Certificate, len(list))
	for i, c := range list {
		out[i].Certificate = c
	}
	return out
}

func setOf(list []mtls.CertificateInfo) (set admin.CertificateSet) {
	for i := range list {
		c := admin.Certificate{Certificate: list[i].X509}
		if source := list[i].Source; source != "inline" && !strings.HasPrefix(source, "secret ") {
			c.Path = source
		}
		if list[i].CA {
			set.CA = append(set.CA, c)
		} else {
			set.Chain = append(set.Chain, c)
		}
	}
	return set
}

// setKey is equal for sets with the same certificate; without one, with the same roots.
func setKey(set admin.CertificateSet) string {
	if len(set.Chain) > 0 {
		return string(set.Chain[0].Raw)
	}
	var key strings.Builder
	for _, c := range set.CA {
		key.Write(c.Raw)
	}
	return key.String()
}

// daysLeft are those until the first certificate in use expires; as many as Envoy says
// where there is none.
func (d *plane) daysLeft() uint64 {
	days, now := uint64(math.MaxUint32), time.Now()
	if c := d.credentials(); c != nil {
		days = admin.DaysUntil(now, &x509.Certificate{NotAfter: c.NotAfter})
	}
	for _, c := range d.proxy.Certificates() {
		days = min(days, admin.DaysUntil(now, c.X509))
	}
	return days
}
