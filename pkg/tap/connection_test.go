// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

func TestRulesOfConnectionsAreReadInFull(t *testing.T) {
	c, err := ParseConnections([]byte(`{"direction":"inbound","taps":[{"name":"db","match":{"serverNames":["DB.example","*.b.example"],"peers":["spiffe://m/a","spiffe://m/b/*"],
		"flags":["UF","UR"],"samplePercent":10,"maxPerSecond":5},"capture":{"requestBodyBytes":100,"responseBodyBytes":200},"redact":{"patterns":["iban"]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r := c.Rules[0]
	if r.Match.ServerNames[0] != "db.example" || len(r.Match.Peers) != 2 || r.Match.Flags != record.UF|record.UR || r.Capture != (Capture{100, 200}) || !r.Redactor.bytes {
		t.Errorf("got %+v", r)
	}
	// Where no bytes are copied there is nothing to hide.
	if _, err := ParseConnections([]byte(`{"taps":[{"name":"a","redact":{"headers":["x"],"jsonPaths":["$.a"],"patterns":["regex:a+"]}}]}`)); err != nil {
		t.Error(err)
	}
}

func TestWhatConnectionsDoNotHaveIsRefusedByName(t *testing.T) {
	config := []byte(`{"taps":[{"name":"a","match":{"status":"5xx","method":"GET","pathPrefix":"/","headers":[{"name":"a"}]},
		"capture":{"responseBodyBytes":1},"redact":{"headers":["x"],"jsonPaths":["$.a"],"patterns":["email","regex:a+"]}}]}`)
	if _, err := ParseConfig(config); err != nil {
		t.Errorf("of exchanges: %v", err)
	}
	_, err := ParseConnections(config)
	for _, want := range []string{"taps[0]: match.status: a connection has none", "match.method:", "match.pathPrefix:", "match.headers:",
		"redact.headers: cannot be applied to the bytes", "redact.jsonPaths:", "redact.patterns[1]:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s:\n%v", want, err)
		}
	}
	_, err = ParseConnections([]byte(`{"taps":[{"name":"a","match":{"serverNames":["*","a.*"],"peers":["*","a*b"],"flags":["XX"]}}]}`))
	for _, want := range []string{"match: serverNames[0]:", "serverNames[1]:", "peers[0]:", "peers[1]:", "flags[0]:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s:\n%v", want, err)
		}
	}
}

func TestConnectionsMatchByNamePeerAndFlags(t *testing.T) {
	m := Match{ServerNames: []string{"a.example", "*.b.example"}, Peers: []string{"spiffe://m/a", "spiffe://m/b/*"}, Flags: record.UF | record.UR}
	for name, want := range map[string]bool{"a.example": true, "x.b.example": true, "x.y.b.example": true, "b.example": false, "xa.example": false, ".b.example": false, "": false} {
		if got := m.HoldsServerName([]byte(name)); got != want {
			t.Errorf("server name %q: %v", name, got)
		}
	}
	for uri, want := range map[string]bool{"spiffe://m/a": true, "spiffe://m/ab": false, "spiffe://m/b/x": true, "spiffe://m/b": false, "dns://x,spiffe://m/a": true, "": false} {
		if got := m.HoldsPeer(&record.Security{PeerURI: uri}); got != want {
			t.Errorf("peer %q: %v", uri, got)
		}
	}
	if m.HoldsPeer(nil) || m.HoldsFlags(0) || m.HoldsFlags(record.UH) || !m.HoldsFlags(record.UH|record.UR) {
		t.Error("holds without a peer, or by the wrong flags")
	}
	var all Match
	if !all.HoldsServerName(nil) || !all.HoldsPeer(nil) || !all.HoldsFlags(0) {
		t.Error("what is empty does not hold always")
	}
}
