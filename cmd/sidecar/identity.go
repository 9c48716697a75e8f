// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

// newCertificates makes the keeper of the sidecar's identity.
func newCertificates(env *environment) *agent.Certificates {
	o := &env.Options
	domain := o.TrustDomain
	if domain == "" && o.TrustBundle != "" {
		domain = identity.DefaultTrustDomain
	}
	return agent.NewCertificates(agent.CertificatesConfig{
		Service: o.Service, TrustDomain: domain, RootFile: o.TrustBundle, Logger: env.Logger.With("part", "identity"),
	})
}

// controlPlane says how to dial a management server.
func (env *environment) controlPlane(target string) grpcdial.Config {
	o := &env.Options
	c := grpcdial.Config{
		Target: target, TokenFile: o.TokenFile, AllowPlaintext: o.InsecureXDS || !o.Common(),
		UserAgent: userAgent + "/" + version(),
	}
	if o.TrustBundle != "" {
		c.TLS = env.Certificates.ClientTLS()
	}
	return c
}

func (d *plane) credentials() *identity.Credentials {
	if d.env.Certificates == nil {
		return nil
	}
	return d.env.Certificates.Credentials()
}

// certificateSamples are the numbers of the identity, the first in Envoy's name.
func (d *plane) certificateSamples() []metrics.Sample {
	days := d.daysLeft()
	out := []metrics.Sample{{
		Name: "server.days_until_first_cert_expiring", Kind: metrics.KindGauge, Value: days,
		Help: "Days until the first certificate in use expires; 4294967295 without any.",
	}}
	if d.env.Certificates == nil {
		return out
	}
	s := d.env.Certificates.Status()
	for _, m := range []struct {
		kind       metrics.Kind
		name, help string
		value      uint64
	}{
		{metrics.KindCounter, "outrigger.certificates_issued", "Certificates that the control plane gave.", s.Issued},
		{metrics.KindCounter, "outrigger.certificates_failed", "Requests for a certificate that failed.", s.Failed},
		{metrics.KindGauge, "outrigger.certificate_expiration_seconds", "When the certificate expires, Unix time; 0 without one.", uint64(max(0, unix(s.NotAfter)))},
		{metrics.KindGauge, "outrigger.trust_bundle_roots", "Roots that peers are checked with.", uint64(s.Roots)},
	} {
		out = append(out, metrics.Sample{Name: m.name, Help: m.help, Kind: m.kind, Value: m.value})
	}
	return out
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
