// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// What a client writes into x-forwarded-client-cert reaches the application only
// where the configuration says so, and the client has a certificate.
func TestTheClientCertificateIsToldAsConfigured(t *testing.T) {
	m := newMint(t)
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.WriteString(w, strings.Join(q.Header.Values("X-Forwarded-Client-Cert"), "|"))
	})
	const forged = "URI=spiffe://evil/admin"
	own := ";URI=" + webID
	for _, c := range []struct {
		name  string
		mode  resource.ForwardMode
		plain string // what is told of a client without a certificate
		// prefix and suffix of what is told of one with a certificate.
		prefix, suffix string
	}{
		{"sanitize", resource.ForwardSanitize, "", "", ""},
		{"forward only", resource.ForwardOnly, "", forged + "|" + forged, forged},
		{"append", resource.ForwardAppend, "", forged + "," + forged + ",By=" + shopID + ";Hash=", own},
		{"sanitize and set", resource.ForwardSanitizeSet, "", "By=" + shopID + ";Hash=", own},
		{"always", resource.ForwardAlways, forged + "|" + forged, forged + "|" + forged, forged},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, secure := range []bool{false, true} {
				r := newRig(t, func(s *resource.Snapshot) {
					secured(m, s, b)
					s.Clusters["c"].TLS = nil
					chain := s.Listeners["l"].FilterChains[0]
					chain.HTTP.ClientCert = resource.ForwardClientCert{Mode: c.mode, URI: true}
					if !secure {
						chain.TLS = nil
					}
				})
				client, scheme := r.client(), "http://"
				if secure {
					client, scheme = r.secureClient(m.config(m.issue(webID, time.Now().Add(time.Hour)))), "https://"
				}
				q, _ := http.NewRequest(http.MethodGet, scheme+r.addr+"/", http.NoBody)
				q.Header["X-Forwarded-Client-Cert"] = []string{forged, forged}
				resp, err := client.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				got := string(body)
				switch {
				case !secure && got != c.plain:
					t.Errorf("in the clear: %q, want %q", got, c.plain)
				case secure && (!strings.HasPrefix(got, c.prefix) || !strings.HasSuffix(got, c.suffix) || c.prefix == "" && got != ""):
					t.Errorf("with a certificate: %q, want %q … %q", got, c.prefix, c.suffix)
				}
			}
		})
	}
}

// An application that has variables for fields reads HTTP_X_FORWARDED_CLIENT_CERT from
// either spelling: no spelling is the client's.
func TestNoSpellingOfAFieldOfTrustPassesByItsRules(t *testing.T) {
	m := newMint(t)
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		for name, values := range q.Header { // as CGI, WSGI and Rack have it
			variable := strings.Map(func(c rune) rune {
				if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
					return c
				}
				return '_'
			}, strings.ToUpper(name))
			if strings.HasPrefix(variable, "X_") && len(values) > 0 {
				fmt.Fprintf(w, "%s=%s\n", variable, strings.Join(values, "|"))
			}
		}
	})
	const forged = "URI=spiffe://evil/admin"
	for _, secure := range []bool{false, true} {
		r := newRig(t, func(s *resource.Snapshot) {
			secured(m, s, b)
			s.Clusters["c"].TLS = nil
			chain := s.Listeners["l"].FilterChains[0]
			chain.HTTP.ClientCert = resource.ForwardClientCert{Mode: resource.ForwardSanitizeSet, URI: true}
			if !secure {
				chain.TLS = nil
			}
		})
		client, scheme := r.client(), "http://"
		if secure {
			client, scheme = r.secureClient(m.config(m.issue(webID, time.Now().Add(time.Hour)))), "https://"
		}
		q, _ := http.NewRequest(http.MethodGet, scheme+r.addr+"/", http.NoBody)
		for _, name := range []string{"x_forwarded_client_cert", "X-Forwarded_Client-Cert", "x-forwarded-client.cert", "X_FORWARDED_CLIENT_CERT"} {
			q.Header[name] = []string{forged}
		}
		q.Header["x_my_field"] = []string{"kept"}
		resp, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		got := string(body)
		if strings.Contains(got, "evil") || secure != strings.Contains(got, "X_FORWARDED_CLIENT_CERT=By="+shopID) {
			t.Errorf("secure %v: the application reads\n%s", secure, got)
		}
		if !strings.Contains(got, "X_MY_FIELD=kept") {
			t.Errorf("secure %v: an application's own field is lost:\n%s", secure, got)
		}
	}
}

// What only the mesh may set is removed from strangers in every spelling, and nothing
// else is.
func TestInternalFieldsOfStrangersAreRemovedInEverySpelling(t *testing.T) {
	for _, internal := range []bool{false, true} {
		x := &exchange{manager: &manager{res: &resource.HTTPManager{}}, internal: internal}
		h := &x.Request
		guarded := []string{"x_envoy_internal", "X-Envoy_Retry-On", "x.outrigger_upstream-failure"}
		others := []string{"x_request_team", "x-envoy-my-own", "x_env", "envoy_x", "x-outrigger"}
		for _, name := range append(guarded, others...) {
			h.AddString(name, "v")
		}
		h.AddString("x_forwarded_client_cert", "v")
		if n := testing.AllocsPerRun(1, x.variants); n != 0 {
			t.Errorf("%v allocations", n)
		}
		want := len(others)
		if internal {
			want += len(guarded)
		}
		if h.Len() != want {
			t.Errorf("internal %v: %d fields are left, want %d:\n%s", internal, h.Len(), want, h.AppendFields(nil))
		}
	}
}

func BenchmarkVariants(b *testing.B) {
	x := &exchange{manager: &manager{res: &resource.HTTPManager{}}}
	for _, name := range []string{
		"host", "accept", "user-agent", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "accept-encoding", "accept-language",
		"cookie", "x-tenant-id", "x-correlation-id", "content-type", "x-my-application-name",
	} {
		x.Request.Add([]byte(name), []byte("v"))
	}
	for b.Loop() {
		x.variants()
	}
}

func TestAllocTheClientCertificateHeader(t *testing.T) {
	s := &record.Security{PeerFingerprint: "ab", PeerSubject: "CN=a", PeerURI: webID, LocalURI: shopID}
	c := &resource.ForwardClientCert{Mode: resource.ForwardSanitizeSet, Subject: true, URI: true, DNS: true}
	b := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { b = appendClientCert(b[:0], c, s) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func TestNamesInTheClientCertificateHeaderCannotBreakOut(t *testing.T) {
	s := &record.Security{PeerFingerprint: "ab", PeerSubject: "CN=a\"b\\,O=\x01c", PeerURI: "u:a;Hash=evil,u:b", PeerDNS: "x,y", LocalURI: ""}
	got := string(appendClientCert(nil, &resource.ForwardClientCert{Subject: true, URI: true, DNS: true}, s))
	want := `By=;Hash=ab;Subject="CN=a\"b\\,O=?c";URI="u:a;Hash=evil";URI=u:b;DNS=x;DNS=y`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
