// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"strings"
)

// DefaultTrustDomain is that of a mesh which names none.
const DefaultTrustDomain = "outrigger.local"

// The namespaces of IDs. Services have one namespace as long as the mesh has no
// other; the control plane has its own, which no service can be in.
const (
	DefaultNamespace = "default"
	systemNamespace  = "outrigger-system"
)

// Bounds of the SPIFFE ID specification, section 2.
const (
	maxIDBytes          = 2048
	maxTrustDomainBytes = 255
)

// ID is a SPIFFE ID in its two parts; it compares with ==. The zero ID is nobody.
type ID struct {
	TrustDomain string
	Path        string // begins with /
}

// String is the URI: spiffe://TRUST_DOMAIN/PATH.
func (id ID) String() string {
	if id == (ID{}) {
		return ""
	}
	return scheme + id.TrustDomain + id.Path
}

const scheme = "spiffe://"

// ServiceID is the identity of the sidecars of a service.
func ServiceID(trustDomain, service string) ID {
	return ID{trustDomain, "/ns/" + DefaultNamespace + "/sa/" + service}
}

// ControlPlaneID is the identity of the control plane.
func ControlPlaneID(trustDomain string) ID {
	return ID{trustDomain, "/ns/" + systemNamespace + "/sa/controlplane"}
}

// Service is the service that an ID made by ServiceID stands for.
func (id ID) Service() (name string, ok bool) {
	name, ok = strings.CutPrefix(id.Path, "/ns/"+DefaultNamespace+"/sa/")
	return name, ok && name != "" && !strings.Contains(name, "/")
}

// ParseID reads a SPIFFE ID byte by byte, as the specification has it: nothing is
// decoded or normalised, so that two IDs are the same only if their bytes are.
func ParseID(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	switch {
	case len(s) > maxIDBytes:
		return ID{}, fmt.Errorf("SPIFFE ID of %d bytes: the limit is %d", len(s), maxIDBytes)
	case !ok:
		return ID{}, fmt.Errorf("SPIFFE ID %q: want spiffe://TRUST_DOMAIN/PATH", s)
	}
	domain, path, ok := strings.Cut(rest, "/")
	if !ok {
		return ID{}, fmt.Errorf("SPIFFE ID %q: has no path", s)
	}
	if err := CheckTrustDomain(domain); err != nil {
		return ID{}, fmt.Errorf("SPIFFE ID %q: %w", s, err)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if err := checkSegment(segment); err != nil {
			return ID{}, fmt.Errorf("SPIFFE ID %q: %w", s, err)
		}
	}
	return ID{domain, "/" + path}, nil
}

// CheckTrustDomain says what is wrong with the name of a trust domain.
func CheckTrustDomain(domain string) error {
	if domain == "" || len(domain) > maxTrustDomainBytes {
		return fmt.Errorf("trust domain: %d bytes, want 1 to %d", len(domain), maxTrustDomainBytes)
	}
	for i := range len(domain) {
		if c := domain[i]; !lower(c) && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("trust domain %q: want lower-case letters, digits, '.', '-' and '_'", domain)
		}
	}
	return nil
}

func checkSegment(s string) error {
	if s == "" || s == "." || s == ".." {
		return fmt.Errorf("path segment %q: not allowed", s)
	}
	for i := range len(s) {
		if c := s[i]; !lower(c) && (c < 'A' || c > 'Z') && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("path segment %q: want letters, digits, '.', '-' and '_'", s)
		}
	}
	return nil
}

func lower(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
