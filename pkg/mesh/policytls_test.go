// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"strings"
	"testing"
	"time"
)

func TestPermissiveHasToEnd(t *testing.T) {
	for tls, fault := range map[string]string{
		"{mode: strict}": "",
		"{mode: permissive, until: 2026-12-01T00:00:00Z}": "",
		"{mode: permissive}":                              "spec.tls.until: missing",
		"{mode: strict, until: 2026-12-01T00:00:00Z}":     "spec.tls.until: only with permissive",
		"{mode: off}":                         "spec.tls.mode",
		"{}":                                  "spec.tls.mode",
		"{mode: permissive, until: tomorrow}": "spec.tls.until",
	} {
		_, err := ParseOne([]byte("apiVersion: outrigger.io/v1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec: {targetRef: {kind: Service, name: orders}, tls: " + tls + "}\n"))
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%s: %v, want %q", tls, err, fault)
		}
	}
}

func TestWithoutAPolicyNothingIsLetIn(t *testing.T) {
	var none *TrafficPolicy
	if !none.PermissiveUntil().IsZero() || none.RequiresTLS() {
		t.Error("no policy says something")
	}
	until := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	p := &TrafficPolicy{Spec: TrafficPolicySpec{TLS: &PolicyTLS{Mode: TLSPermissive, Until: until}}}
	if p.PermissiveUntil() != until || p.RequiresTLS() {
		t.Errorf("%v %t", p.PermissiveUntil(), p.RequiresTLS())
	}
}
