// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// mixed is a cluster of one endpoint over TLS and one in the clear, told apart by
// their metadata.
func mixed(m *mint, s *resource.Snapshot, secure, plain string) *resource.Cluster {
	c := withCluster(s, "c", secure, plain)
	c.SocketMatches = []resource.SocketMatch{{
		Name: "mutual-tls", Match: map[string]string{"mutualTLS": "true"},
		TLS: &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{m.issue(webID, time.Now().Add(time.Hour))}, Validation: m.trust(shopID)}},
	}}
	mark(s, "c", 0, "true")
	return c
}

// mark says in an endpoint's metadata whether it takes mutual TLS.
func mark(s *resource.Snapshot, cluster string, endpoint int, value string) {
	a := *s.Assignments[cluster]
	l := a.Localities[0]
	l.Endpoints = append([]resource.Endpoint(nil), l.Endpoints...)
	l.Endpoints[endpoint].Metadata = resource.Metadata{resource.MatchNamespace: {"mutualTLS": value}}
	a.Localities = []resource.Locality{l}
	s.Assignments[cluster] = &a
}

func says(what string) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		if q.TLS != nil {
			what := what + " over " + q.TLS.NegotiatedProtocol
			_, _ = io.WriteString(w, what)
			return
		}
		_, _ = io.WriteString(w, what)
	}
}

func TestEndpointsOfOneClusterAreSpokenToAsTheirMetadataSays(t *testing.T) {
	m := newMint(t)
	secure, plain := secureBackend(m, shopID, says("secure")), backend(t, says("plain"))
	r := newRig(t, func(s *resource.Snapshot) { mixed(m, s, secure, plain) })
	got := map[string]int{}
	for range 10 {
		resp, body := r.get("/")
		if resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		got[body]++
	}
	if got["secure over http/1.1"] != 5 || got["plain"] != 5 {
		t.Errorf("%v", got)
	}
}

// An endpoint that takes TLS from now on gets no request on a connection in the clear,
// and what has not changed keeps its connections.
func TestConnectionsEndWhenTheirEndpointIsSpokenToInAnotherWay(t *testing.T) {
	m := newMint(t)
	secure, plain := secureBackend(m, shopID, says("secure")), backend(t, says("plain"))
	r := newRig(t, func(s *resource.Snapshot) { mixed(m, s, secure, plain) })
	for range 4 {
		r.get("/")
	}
	total := func() uint64 { return r.stats()["cluster.c.upstream_cx_total"].Value }
	before := total()
	// The same settings, decoded anew.
	again := *r.snap.Clusters["c"]
	again.SocketMatches = append([]resource.SocketMatch(nil), again.SocketMatches...)
	tls := *again.SocketMatches[0].TLS
	again.SocketMatches[0].TLS = &tls
	r.snap.Clusters["c"] = &again
	r.apply(r.snap)
	for range 4 {
		r.get("/")
	}
	if n := total(); n != before {
		t.Errorf("%d connections were made after an update that changed nothing of them", n-before)
	}
	// From now on the plain endpoint is to be spoken to over TLS, which it does not know.
	mark(r.snap, "c", 1, "true")
	r.apply(r.snap)
	for range 4 {
		if _, body := r.get("/"); body == "plain" {
			t.Error("a request went to it in the clear")
		}
	}
}

func TestTheFirstTransportThatMatchesIsTaken(t *testing.T) {
	any, tls, both := map[string]string(nil), map[string]string{"mutualTLS": "true"}, map[string]string{"mutualTLS": "true", "zone": "a"}
	for _, c := range []struct {
		match, about map[string]string
		want         bool
	}{
		{any, nil, true}, {any, both, true}, {tls, nil, false}, {tls, map[string]string{"mutualTLS": ""}, false}, {tls, tls, true}, {tls, both, true},
		{both, tls, false}, {both, both, true}, {map[string]string{"x": ""}, nil, false}, {map[string]string{"x": ""}, map[string]string{"x": ""}, true},
	} {
		if got := (&transport{match: c.match}).accepts(c.about); got != c.want {
			t.Errorf("%v accepts %v: %t", c.match, c.about, got)
		}
	}
}

// A server that refuses our certificate has processed nothing: the request goes to
// another endpoint, whatever its method.
func TestARefusedCertificateIsAFailedConnect(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1", true: "HTTP/2"}[http2], func(t *testing.T) { refusedCertificate(t, http2) })
	}
}

func refusedCertificate(t *testing.T, http2 bool) {
	m, other := newMint(t), newMint(t)
	good := backend(t, says("plain"))
	if http2 {
		b := httptest.NewUnstartedServer(says("plain"))
		b.Config.Protocols = new(http.Protocols)
		b.Config.Protocols.SetUnencryptedHTTP2(true)
		b.Start()
		t.Cleanup(b.Close)
		good = b.Listener.Addr().String()
	}
	refusing := newRig(t, func(s *resource.Snapshot) { // a sidecar: its alerts are read
		secured(m, s, backend(t, says("never")))
		s.Secrets["ca"].Validation = other.trust(webID)
	})
	var saw func(string)
	r := newRig(t, func(s *resource.Snapshot) {
		mixed(m, s, refusing.addr, good).HTTP2 = http2
		saw = logTo(t, s, "%RESPONSE_CODE% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_TRANSPORT_FAILURE_REASON%")
	})
	for range 6 {
		resp, err := r.client().Post("http://"+r.addr+"/", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != "plain" {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	saw("200 2 TLS_error:_peer_sent_an_alert:_")
	if n := r.stats()["cluster.c.upstream_cx_connect_fail"].Value; n == 0 {
		t.Error("it does not count as a failed connect")
	}
}

// A mesh has a cluster for each service, and each names the sidecar's own certificate
// and roots: they are parsed once, not a thousand times.
func TestAThousandSecuredClustersShareTheCertificate(t *testing.T) {
	m := newMint(t)
	const clusters = 1000
	own := m.issue(webID, time.Now().Add(time.Hour))
	roots := &resource.ValidationContext{TrustDomains: []resource.TrustDomain{{Name: "mesh.example", Bundle: resource.DataSource{Inline: m.pem}}}, MaxDepth: -1}
	r := newRig(t, func(s *resource.Snapshot) {
		s.Secrets = map[string]*resource.Secret{
			resource.IdentitySecret: {Name: resource.IdentitySecret, Certificate: own}, resource.RootsSecret: {Name: resource.RootsSecret, Validation: roots},
		}
	})
	heap := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	add := func(secure bool) {
		for i := range clusters {
			name := "c" + strconv.Itoa(i)
			c := withCluster(r.snap, name)
			if secure {
				c.SocketMatches = []resource.SocketMatch{{Match: map[string]string{"mutualTLS": "true"}, TLS: &resource.UpstreamTLS{MaxSessionKeys: 1, CommonTLS: resource.CommonTLS{
					CertificateSecrets: []string{resource.IdentitySecret}, ValidationSecret: resource.RootsSecret,
					Validation: &resource.ValidationContext{MaxDepth: -1, SANs: []resource.SANMatcher{{Kind: resource.SANURI, Match: resource.StringMatch{Value: shopID + name}}}},
				}}}}
			}
		}
		r.apply(r.snap)
	}
	add(false)
	plain := heap() - before
	add(true)
	secured := heap() - before - plain
	began := time.Now()
	r.snap.Secrets = map[string]*resource.Secret{
		resource.IdentitySecret: {Name: resource.IdentitySecret, Certificate: m.issue(webID, time.Now().Add(time.Hour))},
		resource.RootsSecret:    r.snap.Secrets[resource.RootsSecret],
	}
	r.apply(r.snap)
	t.Logf("%d clusters: %d kB in the clear, %d kB more with TLS; a rotation of all took %v", clusters, plain>>10, secured>>10, time.Since(began).Round(time.Millisecond))
	// Measured 3.0 kB a cluster; each with a certificate and a pool of its own: 9.7 kB.
	if secured > clusters*6<<10 {
		t.Errorf("TLS takes %d bytes of each cluster", secured/clusters)
	}
}
