// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"strconv"
	"time"
)

// CertificateSet is one certificate with those that vouch for it, and the roots
// that its peers are checked with.
type CertificateSet struct {
	CA    []Certificate
	Chain []Certificate
}

// Certificate is one with where it is from.
type Certificate struct {
	*x509.Certificate
	Path string // empty: no file
}

// certificateDetails has the shape of Envoy's admin.v3.CertificateDetails.
type certificateDetails struct {
	Path      string            `json:"path"`
	Serial    string            `json:"serial_number"`
	Names     []alternativeName `json:"subject_alt_names"`
	Days      string            `json:"days_until_expiration"`
	ValidFrom time.Time         `json:"valid_from"`
	Expires   time.Time         `json:"expiration_time"`
}

// alternativeName has one of its fields.
type alternativeName struct {
	DNS string `json:"dns,omitempty"`
	URI string `json:"uri,omitempty"`
	IP  string `json:"ip_address,omitempty"`
}

type certificateJSON struct {
	CA    []certificateDetails `json:"ca_cert"`
	Chain []certificateDetails `json:"cert_chain"`
}

func runCerts(s *Server, r *request) {
	out := []certificateJSON{}
	now := time.Now()
	if s.config.Certificates != nil {
		for _, set := range s.config.Certificates() {
			out = append(out, certificateJSON{detailsOf(now, set.CA), detailsOf(now, set.Chain)})
		}
	}
	r.json(struct {
		Certificates []certificateJSON `json:"certificates"`
	}{out})
}

func detailsOf(now time.Time, list []Certificate) []certificateDetails {
	out := make([]certificateDetails, len(list))
	for i, c := range list {
		d := certificateDetails{
			Path: cmp.Or(c.Path, "<inline>"), Serial: fmt.Sprintf("%x", c.SerialNumber), Names: []alternativeName{},
			Days: strconv.FormatUint(DaysUntil(now, c.Certificate), 10), ValidFrom: c.NotBefore.UTC(), Expires: c.NotAfter.UTC(),
		}
		for _, u := range c.URIs {
			d.Names = append(d.Names, alternativeName{URI: u.String()})
		}
		for _, n := range c.DNSNames {
			d.Names = append(d.Names, alternativeName{DNS: n})
		}
		for _, ip := range c.IPAddresses {
			d.Names = append(d.Names, alternativeName{IP: ip.String()})
		}
		out[i] = d
	}
	return out
}

// DaysUntil is how many whole days a certificate is still good for.
func DaysUntil(now time.Time, c *x509.Certificate) uint64 {
	return uint64(max(0, c.NotAfter.Sub(now)/(24*time.Hour)))
}
