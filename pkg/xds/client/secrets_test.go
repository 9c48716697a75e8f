// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

func TestListenersComeWithTheirSecretsInEveryModeOfDelivery(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads"})
			c := start(t, bootstrapFor(t, mode, s), settings{})
			w := world(mode, "v0")
			w.TLS = true
			s.Set(t, nodeID, w.Generate())
			listeners := 6 + w.NumVHDSHTTPListeners
			got := c.wait(t, "listeners", func(s *resource.Snapshot) bool { return len(s.Listeners) == listeners })
			for name, l := range got.Listeners {
				for _, fc := range l.FilterChains {
					if fc.TLS == nil {
						t.Fatalf("listener %s has no TLS", name)
					}
					for _, secret := range fc.TLS.CertificateSecrets {
						if r := got.Secrets[secret]; r == nil || r.Certificate == nil {
							t.Errorf("listener %s is there before its secret %q", name, secret)
						}
					}
				}
			}
		})
	}
}
