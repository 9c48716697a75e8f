// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// expiryStats are the gauges of certificates, as /stats shows them.
func (r *rig) expiryStats() map[string]int64 {
	r.t.Helper()
	all, err := r.p.Stats(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]int64{}
	for _, s := range metrics.Sort(all) {
		if strings.HasSuffix(s.FullName(), ".expiration_unix_time_seconds") {
			out[s.FullName()] = int64(s.Value)
		}
	}
	return out
}

func (r *rig) wantExpiries(when string, want map[string]time.Time) {
	r.t.Helper()
	got, unix := r.expiryStats(), map[string]int64{}
	for name, at := range want {
		unix[name] = at.Unix()
	}
	if !maps.Equal(got, unix) {
		r.t.Errorf("%s: got %v, want %v", when, got, unix)
	}
}

func TestTheExpiryOfEachCertificateIsAStatThatFollowsIt(t *testing.T) {
	m, began := newMint(t), time.Now()
	hour := func(n int) time.Time { return began.Add(time.Duration(n) * time.Hour) }
	// A bundle has the time of what expires first in it.
	bundle := slices.Concat(m.issue(shopID, hour(30)).Chain.Inline, m.pem, m.issue(shopID, hour(20)).Chain.Inline)
	secret := func(until time.Time) *resource.Secret {
		return &resource.Secret{Name: "spiffe://mesh/a:b", Certificate: m.issue(shopID, until)}
	}
	file := filepath.Join(t.TempDir(), "cert.pem")
	inFile := m.issue(webID, hour(7))
	if err := os.WriteFile(file, inFile.Chain.Inline, 0o600); err != nil {
		t.Fatal(err)
	}
	inline := m.issue(webID, hour(8))
	until := hour(5)
	r := newRig(t, func(s *resource.Snapshot) {
		s.Secrets = map[string]*resource.Secret{
			"spiffe://mesh/a:b": secret(until),
			"roots":             {Name: "roots", Validation: &resource.ValidationContext{TrustedCA: resource.DataSource{Inline: bundle}, MaxDepth: -1}},
		}
		own := resource.CommonTLS{CertificateSecrets: []string{"spiffe://mesh/a:b"}, ValidationSecret: "roots"}
		chain := s.Listeners["l"].FilterChains[0]
		chain.TLS = &resource.DownstreamTLS{CommonTLS: own}
		other := *chain // one scope of two chains with one secret: not added up
		other.Name, other.Match.ServerNames = "other", []string{"other.example"}
		other.TLS = &resource.DownstreamTLS{CommonTLS: own}
		other.TLS.Certificates = []*resource.TLSCertificate{{Chain: resource.DataSource{File: file}, Key: inFile.Key}, inline}
		s.Listeners["l"].FilterChains = append(s.Listeners["l"].FilterChains, &other)
		for _, name := range []string{"c", "a:1", "a:2"} {
			c := withCluster(s, name, "127.0.0.1:9")
			c.TLS = &resource.UpstreamTLS{CommonTLS: own}
			if name != "c" {
				c.AltStatName = "shared:name" // one scope of two clusters
			}
		}
	})
	listener := "listener." + strings.ReplaceAll(r.addr, ":", "_") + ".ssl.certificate."
	const end, id = ".expiration_unix_time_seconds", "spiffe://mesh/a:b"
	roots := m.cert.NotAfter
	want := map[string]time.Time{
		listener + id + end: until, listener + "roots" + end: roots,
		listener + file + end: hour(7),
		listener + fmt.Sprintf("unnamed_cert_%x", sha256.Sum256(inline.Chain.Inline))[:len("unnamed_cert_")+8] + end: hour(8),
		"cluster.c.ssl.certificate." + id + end: until, "cluster.c.ssl.certificate.roots" + end: roots,
		"cluster.shared_name.ssl.certificate." + id + end: until, "cluster.shared_name.ssl.certificate.roots" + end: roots,
	}
	r.wantExpiries("at first", want)
	all, err := r.p.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := metrics.WritePrometheus(&text, metrics.Sort(all)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		fmt.Sprintf("envoy_listener_ssl_certificate_expiration_unix_time_seconds{envoy_tls_certificate=%q,envoy_listener_address=%q} %d\n", id, strings.ReplaceAll(r.addr, ":", "_"), until.Unix()),
		fmt.Sprintf("envoy_cluster_ssl_certificate_expiration_unix_time_seconds{envoy_tls_certificate=%q,envoy_cluster_name=%q} %d\n", "roots", "shared_name", roots.Unix()),
	} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("Prometheus' text lacks %s", line)
		}
	}

	until = hour(6)
	r.snap.Secrets = maps.Clone(r.snap.Secrets)
	r.snap.Secrets[id] = secret(until)
	r.apply(r.snap)
	for _, owner := range []string{listener, "cluster.c.ssl.certificate.", "cluster.shared_name.ssl.certificate."} {
		want[owner+id+end] = until
	}
	r.wantExpiries("after a rotation", want)

	remove := func(left int, names ...string) {
		for _, name := range names {
			delete(r.snap.Clusters, name)
		}
		r.apply(r.snap)
		eventually(t, "the clusters are gone", func() bool { return len(r.p.clustersByName()) == left })
	}
	remove(2, "c") // its route stays
	delete(want, "cluster.c.ssl.certificate."+id+end)
	delete(want, "cluster.c.ssl.certificate.roots"+end)
	r.wantExpiries("without the cluster", want)

	l := *r.snap.Listeners["l"]
	l.FilterChains = l.FilterChains[:1]
	r.snap.Listeners["l"] = &l
	remove(0, "a:1", "a:2")
	r.wantExpiries("with one chain", map[string]time.Time{listener + id + end: until, listener + "roots" + end: roots})
}
