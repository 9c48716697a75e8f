// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
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
	s.expiries(p)
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

// expiring is a certificate in stats: of a listener or cluster, by name.
type expiring struct{ kind, owner, name string }

// expiries adds when certificates expire, under Envoy's names: a gauge for each name of
// a certificate or bundle of each listener and cluster. They are read from the contexts
// in use, so they move with a rotation and go with the certificate; there are no more
// than the configuration names. Several certificates of one name, as the roots of a
// bundle or those of chains that share a secret, have the time of the first to expire.
func (s *sampler) expiries(p *Proxy) {
	first := map[expiring]int64{}
	note := func(kind, owner string, set []mtls.CertificateInfo) {
		for i := range set {
			e, at := expiring{kind, owner, set[i].Name}, max(set[i].NotAfter.Unix(), 0)
			if was, ok := first[e]; !ok || at < was {
				first[e] = at
			}
		}
	}
	p.mu.Lock()
	p.eachCertificates(
		func(l *listener, set []mtls.CertificateInfo) {
			if name, ok := l.statName(); ok {
				note("listener", name, set)
			}
		},
		func(c *cluster, spec *clusterSpec, set []mtls.CertificateInfo) {
			note("cluster", c.statName(spec), set)
		},
	)
	p.mu.Unlock()
	for e, at := range first {
		owner := metrics.Tag{Name: "envoy_cluster_name", Value: e.owner}
		if e.kind == "listener" {
			owner.Name = "envoy_listener_address"
		}
		s.in(metrics.NewScope(e.kind+"."+e.owner+".ssl.certificate."+e.name, e.kind+".ssl.certificate", metrics.Tag{Name: "envoy_tls_certificate", Value: e.name}, owner))
		s.add("expiration_unix_time_seconds", "Unix time at which the certificate expires, or the first of its bundle.", gauge, uint64(at))
	}
	s.in(nil)
}
