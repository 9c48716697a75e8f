// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAConfigIsReadInFull(t *testing.T) {
	c, err := ParseConfig([]byte(`{"direction":"inbound","taps":[{"name":"errors","match":{"status":"5xx","method":"POST","pathPrefix":"/v1",
		"headers":[{"name":"X-A","value":"b"}],"samplePercent":12.5,"maxPerSecond":200},"capture":{"requestBodyBytes":65536,"responseBodyBytes":1024},
		"redact":{"headers":["x-t"],"jsonPaths":["$.a"],"patterns":["payment-card"]},"expiresUnixMs":1.767323045e12,"sink":{"file":{"path":"/tmp/x"}}},
		{"name":"all","match":{},"sink":"lake"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r := c.Rules[0]
	if c.Direction != "inbound" || r.Name != "errors" || r.Match.Method != "POST" || r.Match.PathPrefix != "/v1" || r.Match.Headers[0].Name != "x-a" ||
		r.Match.Sample != 125_000 || r.Match.MaxPerSecond != 200 || r.Capture != (Capture{65536, 1024}) || r.Expires != 1767323045e9 ||
		r.Sink != (SinkConfig{Kind: "file", Path: "/tmp/x"}) || !r.Match.Status.Holds(503) || r.Match.Status.Holds(499) {
		t.Errorf("got %+v", r)
	}
	if a := c.Rules[1]; a.Match.Sample != 1_000_000 || a.Sink.Kind != "lake" || !a.Match.Status.Holds(0) {
		t.Errorf("got %+v", a)
	}
}

func TestStatusMatches(t *testing.T) {
	for _, c := range []struct {
		in      string
		holds   []uint16
		refuses []uint16
	}{
		{"", []uint16{0, 200, 599}, nil}, {"404", []uint16{404}, []uint16{403, 405, 0}}, {"5xx", []uint16{500, 599}, []uint16{499, 0}},
		{">= 400", []uint16{400, 599}, []uint16{399, 0}}, {">400", []uint16{401}, []uint16{400}}, {"< 300", []uint16{100, 299}, []uint16{300, 0}},
		{"<=300", []uint16{300}, []uint16{301, 0}}, {"= 201", []uint16{201}, []uint16{200}},
	} {
		m, err := ParseStatus(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
		}
		for _, s := range c.holds {
			if !m.Holds(s) {
				t.Errorf("%q does not hold for %d", c.in, s)
			}
		}
		for _, s := range c.refuses {
			if m.Holds(s) {
				t.Errorf("%q holds for %d", c.in, s)
			}
		}
	}
	for _, in := range []string{"x", "6xx", "99", "600", "!= 200", ">= x", "=> 200", ">=", "5x"} {
		if m, err := ParseStatus(in); err == nil {
			t.Errorf("%q was read as %+v", in, m)
		}
	}
}

func TestABadConfigNamesEveryField(t *testing.T) {
	_, err := ParseConfig([]byte(`{"direction":"up","taps":[{"match":{"status":"abc","samplePercent":101,"maxPerSecond":-1,"headers":[{"name":"a b"}]},
		"capture":{"requestBodyBytes":-1},"redact":{"patterns":["x"]},"expiresUnixMs":-5,"sink":{"kafka":{}}},{"name":"b","sink":{"file":{}}},{"name":"c","sink":{"file":{"path":"x","mode":1}}}]}`))
	for _, want := range []string{"direction:", "taps[0]: name: required", "match.status:", "match.samplePercent:", "match.maxPerSecond:", "match.headers[0].name:",
		"capture: requestBodyBytes:", "redact: patterns[0]:", "expiresUnixMs:", `sink: "kafka" is not supported (known: file, lake)`, "taps[1]: sink: file.path: required", "taps[2]: sink: file:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s:\n%v", want, err)
		}
	}
	for _, in := range []string{``, `[]`, `{"tap":[]}`, `{"taps":[]} {}`, `{"taps":[{"name":"a","matches":{}}]}`} {
		if _, err := ParseConfig([]byte(in)); err == nil {
			t.Errorf("%s was accepted", in)
		}
	}
}
