// SPDX-License-Identifier: Apache-2.0

package mesh

import "time"

// PolicyTLS says how strict a service is about mutual TLS.
type PolicyTLS struct {
	Mode  string    `json:"mode" rule:"required,enum=strict|permissive" doc:"strict: only mutual TLS, also towards instances that have registered without an identity. permissive: the instances take plaintext as well, until a date."`
	Until time.Time `json:"until,omitzero" doc:"When permissive ends by itself and strict is in force; required with permissive, at most 90 days away."`
}

// The modes.
const (
	TLSStrict     = "strict"
	TLSPermissive = "permissive"
)

// MaxPermissive is how far away the end of a permissive policy may be.
const MaxPermissive = 90 * 24 * time.Hour

func (t *PolicyTLS) check(f *faults, path string) {
	switch {
	case t.Mode == TLSPermissive && t.Until.IsZero():
		f.add(path+".until", "missing: permissive has to end, name the date")
	case t.Mode == TLSStrict && !t.Until.IsZero():
		f.add(path+".until", "only with permissive: strict does not end")
	}
}

// PermissiveUntil is when the policy's instances stop taking plaintext; zero where
// they take none. A nil policy is strict.
func (p *TrafficPolicy) PermissiveUntil() time.Time {
	if p == nil || p.Spec.TLS == nil || p.Spec.TLS.Mode != TLSPermissive {
		return time.Time{}
	}
	return p.Spec.TLS.Until
}

// RequiresTLS reports whether the policy says that every instance is to be spoken to
// over mutual TLS, whatever it has registered.
func (p *TrafficPolicy) RequiresTLS() bool {
	return p != nil && p.Spec.TLS != nil && p.Spec.TLS.Mode == TLSStrict
}
