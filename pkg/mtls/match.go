// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

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
