// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
)

// tls adds what has become of handshakes, of both directions, and when the first
// certificate expires.
func (s *sampler) tls(p *Proxy, c *mtls.Counters, plaintext uint64) {
	s.add("outrigger.tls.handshakes_started_total", "TLS handshakes begun.", counter, c.Started)
	s.add("outrigger.tls.handshakes_done_total", "TLS handshakes done.", counter, c.Done)
	s.add("outrigger.tls.handshakes_resumed_total", "TLS handshakes that resumed a session.", counter, c.Resumed)
	s.add("outrigger.tls.plaintext_accepted_total", "Connections accepted in the clear by listeners that also take TLS: those of a permissive policy.", counter, plaintext)
	for r := range mtls.ReasonCount {
		s.add("outrigger.tls.failed_"+mtls.Reason(r).String()+"_total", "TLS handshakes that failed for this reason.", counter, c.Failures[r])
	}
	if first, ok := firstExpiry(p.Certificates()); ok {
		s.add("outrigger.tls.first_certificate_expires_seconds", "Unix time at which the first certificate in use expires.", gauge, uint64(max(first.Unix(), 0)))
	}
}

func firstExpiry(list []mtls.CertificateInfo) (first time.Time, ok bool) {
	for i := range list {
		if t := list[i].NotAfter; !ok || t.Before(first) {
			first, ok = t, true
		}
	}
	return first, ok
}
