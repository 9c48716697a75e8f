// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"errors"
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// maxNames bounds the server names and the peers of one rule.
const maxNames = 64

// ParseConnections reads the JSON of a configuration of taps on connections that are
// passed on as bytes. It is ParseConfig's, and what connections do not have is refused
// by name: matches of requests, and redaction that cannot be applied to the bytes that
// a rule copies.
func ParseConnections(config []byte) (*Config, error) { return parse(config, true) }

// ofConnections makes a rule one of connections, or says why it cannot be.
func (j *ruleJSON) ofConnections(r *Rule) error {
	var errs []error
	refuse := func(is bool, field, why string) {
		if is {
			errs = append(errs, fmt.Errorf("%s: %s", field, why))
		}
	}
	m := &j.Match
	const none = "a connection has none: take it out, or match serverNames, peers or flags"
	refuse(m.Status != "", "match.status", none)
	refuse(m.Method != "", "match.method", none)
	refuse(m.PathPrefix != "", "match.pathPrefix", none)
	refuse(len(m.Headers) > 0, "match.headers", none)
	if j.Capture.RequestBodyBytes+j.Capture.ResponseBodyBytes > 0 {
		const unsure = "cannot be applied to the bytes of a connection: take it out, or capture no bytes"
		refuse(len(j.Redact.Headers) > 0, "redact.headers", unsure)
		refuse(len(j.Redact.JSONPaths) > 0, "redact.jsonPaths", unsure)
		for i, p := range j.Redact.Patterns {
			refuse(strings.HasPrefix(p, "regex:"), fmt.Sprintf("redact.patterns[%d]", i),
				"an expression cannot be held to where bytes are cut: use a detector, or capture no bytes")
		}
	}
	if r != nil && r.Redactor != nil {
		r.Redactor.bytes = true
	}
	return errors.Join(errs...)
}

// connectionMatch reads what matches the connection.
func (j *ruleJSON) connectionMatch(m *Match) error {
	var errs []error
	if n := max(len(j.Match.ServerNames), len(j.Match.Peers)); n > maxNames {
		errs = append(errs, fmt.Errorf("serverNames, peers: %d entries, at most %d are allowed", n, maxNames))
	}
	for i, n := range j.Match.ServerNames {
		n = strings.ToLower(n)
		if bare := strings.TrimPrefix(n, "*."); bare == "" || strings.Contains(bare, "*") {
			errs = append(errs, fmt.Errorf("serverNames[%d]: %q is neither a name nor *.SUFFIX", i, n))
		}
		m.ServerNames = append(m.ServerNames, n)
	}
	for i, p := range j.Match.Peers {
		if bare := strings.TrimSuffix(p, "*"); bare == "" || strings.Contains(bare, "*") {
			errs = append(errs, fmt.Errorf("peers[%d]: %q is neither an identity nor PREFIX*", i, p))
		}
		m.Peers = append(m.Peers, p)
	}
	for i, s := range j.Match.Flags {
		f, ok := record.ParseFlag(s)
		if !ok {
			errs = append(errs, fmt.Errorf("flags[%d]: %q is not a response flag such as UF", i, s))
		}
		m.Flags |= f
	}
	return errors.Join(errs...)
}

// HoldsServerName reports whether the name, in lower case, is one of ServerNames;
// *.SUFFIX holds for all names below the suffix.
func (m *Match) HoldsServerName(name []byte) bool {
	for _, want := range m.ServerNames {
		below := len(want) > 1 && want[0] == '*' && len(name) >= len(want) && string(name[len(name)-len(want)+1:]) == want[1:]
		if below || string(name) == want {
			return true
		}
	}
	return len(m.ServerNames) == 0
}

// HoldsPeer reports whether one of the peer's verified identities is one of Peers;
// PREFIX* holds for all that begin so. Without a certificate only empty Peers hold.
func (m *Match) HoldsPeer(s *record.Security) bool {
	if len(m.Peers) == 0 {
		return true
	}
	if s == nil {
		return false
	}
	for uris := s.PeerURI; uris != ""; {
		uri, rest, _ := strings.Cut(uris, ",")
		for _, want := range m.Peers {
			if prefix, ok := strings.CutSuffix(want, "*"); uri == want || ok && strings.HasPrefix(uri, prefix) {
				return true
			}
		}
		uris = rest
	}
	return false
}

// HoldsFlags reports whether the response flags are matched.
func (m *Match) HoldsFlags(f record.Flags) bool { return m.Flags == 0 || m.Flags&f != 0 }
