// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// Identity is what a certificate says about its holder. It is immutable and shared
// by the connections of the same peer.
type Identity struct {
	// URI is the only URI of the certificate, byte for byte; "" where there is none.
	URI string
	// SPIFFE: URI is a SPIFFE ID of a workload. TrustDomain is that of it.
	SPIFFE      bool
	TrustDomain string
	// URIs, DNS, Emails and IPs are the subject alternative names, byte for byte.
	URIs, DNS, Emails []string
	IPs               []netip.Addr
	Subject, Issuer   string // RFC 2253
	Serial            string // lower case hex
	Fingerprint       string // SHA-256 of the certificate, lower case hex
	NotBefore         time.Time
	NotAfter          time.Time
}

const (
	maxSANs      = 256
	maxSPIFFE    = 2048 // bytes of an ID
	maxDomain    = 255
	spiffePrefix = "spiffe://"
)

var sanExtension = asn1.ObjectIdentifier{2, 5, 29, 17}

// identify reads the identity of a certificate. It refuses what robust peers never
// have: names with NUL, more than one URI where one of them is a SPIFFE ID, and
// malformed SPIFFE IDs.
func identify(cert *x509.Certificate) (*Identity, error) {
	sum := sha256.Sum256(cert.Raw)
	id := &Identity{
		Subject: cert.Subject.String(), Issuer: cert.Issuer.String(),
		Fingerprint: hex.EncodeToString(sum[:]), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	}
	if cert.SerialNumber != nil {
		id.Serial = cert.SerialNumber.Text(16)
	}
	for _, e := range cert.Extensions {
		if e.Id.Equal(sanExtension) {
			if err := id.names(e.Value); err != nil {
				return nil, err
			}
		}
	}
	spiffe := 0
	for _, u := range id.URIs {
		if len(u) >= len(spiffePrefix) && strings.EqualFold(u[:len(spiffePrefix)], spiffePrefix) {
			spiffe++
		}
	}
	if spiffe > 0 && len(id.URIs) != 1 {
		return nil, refuse(BadIdentity, "the certificate has a SPIFFE ID and another URI")
	}
	if len(id.URIs) == 1 {
		id.URI = id.URIs[0]
	}
	if spiffe == 1 {
		domain, err := parseSPIFFE(id.URI)
		if err != nil {
			return nil, refuse(BadIdentity, err.Error())
		}
		if cert.IsCA {
			return nil, refuse(BadIdentity, "a workload shows the certificate of an authority")
		}
		id.SPIFFE, id.TrustDomain = true, domain
	}
	return id, nil
}

// names reads the extension itself: parsed forms lose bytes.
func (id *Identity) names(der []byte) error {
	var seq asn1.RawValue
	rest, err := asn1.Unmarshal(der, &seq)
	if err != nil || len(rest) > 0 || !seq.IsCompound || seq.Tag != asn1.TagSequence || seq.Class != asn1.ClassUniversal {
		return refuse(BadIdentity, "the subject alternative names are malformed")
	}
	rest = seq.Bytes
	for n := 0; len(rest) > 0; n++ {
		var v asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &v); err != nil || v.Class != asn1.ClassContextSpecific {
			return refuse(BadIdentity, "the subject alternative names are malformed")
		}
		if n >= maxSANs {
			return refuse(BadIdentity, "the certificate has too many subject alternative names")
		}
		if v.Tag != 1 && v.Tag != 2 && v.Tag != 6 {
			if ip, ok := netip.AddrFromSlice(v.Bytes); v.Tag == 7 && ok {
				id.IPs = append(id.IPs, ip)
			}
			continue
		}
		s := string(v.Bytes)
		if !printable(s) {
			return refuse(BadIdentity, "a subject alternative name has bytes that no name has")
		}
		switch v.Tag {
		case 1:
			id.Emails = append(id.Emails, s)
		case 2:
			id.DNS = append(id.DNS, s)
		case 6:
			id.URIs = append(id.URIs, s)
		}
	}
	return nil
}

// printable reports whether s is ASCII without spaces and control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// parseSPIFFE checks a SPIFFE ID of a workload and returns its trust domain
// (SPIFFE-ID §2; no percent-encoding, no case folding).
func parseSPIFFE(s string) (domain string, err error) {
	rest, ok := strings.CutPrefix(s, spiffePrefix)
	if !ok || len(s) > maxSPIFFE {
		return "", errors.New("the SPIFFE ID has no scheme in lower case or is too long")
	}
	domain, path, _ := strings.Cut(rest, "/")
	if domain == "" || len(domain) > maxDomain {
		return "", errors.New("the SPIFFE ID has no valid trust domain")
	}
	for i := range len(domain) {
		if !domainByte(domain[i]) {
			return "", errors.New("the SPIFFE ID has no valid trust domain")
		}
	}
	if path == "" {
		return "", errors.New("the SPIFFE ID names no workload")
	}
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return "", errors.New("the SPIFFE ID has an empty or relative path segment")
		}
		for i := range len(seg) {
			if b := seg[i]; !domainByte(b) && (b < 'A' || b > 'Z') {
				return "", errors.New("the SPIFFE ID's path has bytes that are not allowed")
			}
		}
	}
	return domain, nil
}

func domainByte(b byte) bool {
	return 'a' <= b && b <= 'z' || '0' <= b && b <= '9' || b == '.' || b == '-' || b == '_'
}
