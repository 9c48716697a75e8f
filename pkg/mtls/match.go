// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// matches applies a matcher to a name of a certificate.
func matches(m *resource.StringMatch, s string) bool {
	if m.Fold {
		s = strings.ToLower(s)
	}
	switch m.Kind {
	case resource.MatchExact:
		return s == m.Value
	case resource.MatchPrefix:
		return strings.HasPrefix(s, m.Value)
	case resource.MatchSuffix:
		return strings.HasSuffix(s, m.Value)
	case resource.MatchContains:
		return strings.Contains(s, m.Value)
	case resource.MatchRegex:
		return m.Regex.MatchString(s)
	}
	return false
}

// wildcard reports whether the DNS name of a certificate, such as *.example.com,
// covers the exact name that is wanted, as Envoy has it.
func wildcard(m *resource.StringMatch, name string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(name), "*.")
	if !ok || m.Kind != resource.MatchExact || !strings.Contains(rest, ".") {
		return false
	}
	label, tail, _ := strings.Cut(strings.ToLower(m.Value), ".")
	return label != "" && tail == rest
}
