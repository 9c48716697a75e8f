// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func object(t *testing.T, text string) Object {
	t.Helper()
	o, err := ParseOne([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func at(o Object, second int) Object {
	o.Head().Metadata.CreatedAt = time.Unix(int64(second), 0)
	return o
}

func route(t *testing.T, name, parent, path string, second int) Object {
	t.Helper()
	return at(object(t, fmt.Sprintf(`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: %s},
  spec: {parentRefs: [{kind: Service, name: %s}], rules: [{matches: [{path: {value: %s}}], backendRefs: [{name: %s}]}]}}`, name, parent, path, parent)), second)
}

func put(objects ...Object) []Change {
	var out []Change
	for _, o := range objects {
		out = append(out, Change{Put: o})
	}
	return out
}

// TestAnOldModelNeverChanges applies random changes and compares every model
// that was ever made with a picture of it taken when it was made.
func TestAnOldModelNeverChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		models, pictures := []*Model{Empty()}, []string{picture(Empty())}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			var changes []Change
			for range rapid.IntRange(1, 4).Draw(t, "batch") {
				changes = append(changes, drawChange(t))
			}
			m := models[len(models)-1].Apply(changes...)
			models, pictures = append(models, m), append(pictures, picture(m))
			if m.Revision != uint64(len(models)-1) {
				t.Fatalf("revision: got %d, want %d", m.Revision, len(models)-1)
			}
		}
		for i, m := range models {
			if got := picture(m); got != pictures[i] {
				t.Fatalf("model %d changed:\n%s\nwas\n%s", i, got, pictures[i])
			}
		}
	})
}

func drawChange(t *rapid.T) Change {
	name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "service")
	id := rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "id")
	switch rapid.IntRange(0, 4).Draw(t, "change") {
	case 0:
		s := &Service{Header: Header{Kind: KindService, Metadata: Metadata{Name: name}}}
		for range rapid.IntRange(0, 2).Draw(t, "endpoints") {
			s.Spec.Endpoints = append(s.Spec.Endpoints, StaticEndpoint{Address: "10.0.0." + id, Port: 80})
		}
		return Change{Put: s}
	case 1:
		return Change{Delete: Key{KindService, name}}
	case 2:
		return Change{DeleteInstance: InstanceKey{name, id}}
	case 3:
		return Change{DropService: name}
	}
	return Change{PutInstance: &Instance{Service: name, ID: id, Port: uint16(rapid.IntRange(1, 9).Draw(t, "port"))}}
}

func picture(m *Model) string {
	var b strings.Builder
	for _, n := range m.ServiceNames() {
		fmt.Fprintf(&b, "service %s implicit=%v\n", n, m.Services[n].Implicit)
	}
	for n, list := range map[string][]*Instance{"a": m.Instances["a"], "b": m.Instances["b"]} {
		last := ""
		for _, i := range list {
			fmt.Fprintf(&b, "%s/%s:%d\n", n, i.ID, i.Port)
			if i.ID < last {
				b.WriteString("NOT SORTED\n")
			}
			last = i.ID
		}
		if len(list) > 0 && m.Services[n] == nil {
			b.WriteString("INSTANCES WITHOUT A SERVICE\n")
		}
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines { // the order of the two services does not matter
		for j := i + 1; j < len(lines); j++ {
			if lines[j] < lines[i] {
				lines[i], lines[j] = lines[j], lines[i]
			}
		}
	}
	return strings.Join(lines, "\n")
}

func TestEveryInstanceHasAServiceAndListsAreSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Empty()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m = m.Apply(drawChange(t))
		}
		if p := picture(m); strings.Contains(p, "NOT SORTED") || strings.Contains(p, "WITHOUT") {
			t.Fatal(p)
		}
	})
}

func TestAServiceObjectListsStaticInstancesBesideRegisteredOnes(t *testing.T) {
	svc := object(t, `{apiVersion: outrigger.io/v1, kind: Service, metadata: {name: a}, spec: {endpoints: [{address: 10.0.0.1, port: 80}]}}`)
	m := Empty().Apply(Change{PutInstance: &Instance{Service: "a", ID: "x", Address: "10.0.0.2", Port: 1}}, Change{Put: svc})
	if got := len(m.Instances["a"]); got != 2 || m.Services["a"].Implicit {
		t.Errorf("instances: got %d, want 2; implicit %v", got, m.Services["a"].Implicit)
	}
	m = m.Apply(Change{Delete: svc.Key()})
	if got := len(m.Instances["a"]); got != 1 || !m.Services["a"].Implicit {
		t.Errorf("after deletion: got %d instances, want the registered one; implicit %v", got, m.Services["a"].Implicit)
	}
}

func TestOfTwoPoliciesForOneServiceTheOlderIsInForce(t *testing.T) {
	policy := func(name string, second int) Object {
		return at(object(t, `{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: `+name+`}, spec: {targetRef: {kind: Service, name: a}}}`), second)
	}
	older, newer := policy("z", 1), policy("b", 2)
	m := Empty().Apply(put(newer, older)...)
	if got := m.PolicyOf("a"); got != older {
		t.Errorf("in force: got %s, want the older", got.Key())
	}
	if s := Review(m, older); !s.Accepted {
		t.Errorf("older: %+v", s)
	}
	s := Review(m, newer)
	if s.Accepted || !strings.Contains(s.Conditions[len(s.Conditions)-1].Message, "TrafficPolicy/z has the same target and is older") {
		t.Errorf("newer: %+v", s)
	}
}

func TestAMatchThatAnOlderRouteHasIsShownAsShadowed(t *testing.T) {
	older, newer, other := route(t, "z", "a", "/x", 1), route(t, "b", "a", "/x", 2), route(t, "c", "a", "/y", 3)
	m := Empty().Apply(put(older, newer, other)...)
	shadowed := func(o Object) bool {
		for _, c := range Review(m, o).Conditions {
			if c.Reason == "MatchShadowed" {
				return true
			}
		}
		return false
	}
	if shadowed(older) || !shadowed(newer) || shadowed(other) {
		t.Errorf("shadowed: got %v %v %v, want false true false", shadowed(older), shadowed(newer), shadowed(other))
	}
}

func TestRoutesThatShareAHostNameOrTakeAServicesNameSayIt(t *testing.T) {
	host := func(name, parent, host string, second int) Object {
		return at(object(t, fmt.Sprintf(`{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: %s},
  spec: {parentRefs: [{kind: Service, name: %s}], hostnames: [%s], rules: [{backendRefs: [{name: %s}]}]}}`, name, parent, host, parent)), second)
	}
	a, b, c := host("a", "x", "shop.example.com", 1), host("b", "y", "shop.example.com", 2), host("c", "z", "x", 3)
	m := Empty().Apply(append(put(a, b, c), Change{PutInstance: &Instance{Service: "x", ID: "1"}}, Change{PutInstance: &Instance{Service: "y", ID: "1"}}, Change{PutInstance: &Instance{Service: "z", ID: "1"}})...)
	for o, want := range map[Object]string{a: "Contested spec.rules[0]", b: "MatchShadowed spec.rules[0]", c: "HostnameTaken spec.hostnames[0]"} {
		got := ""
		for _, x := range Review(m, o).Conditions[1:] {
			got = x.Reason + " " + x.Field
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", o.Key(), got, want)
		}
	}
}

func TestABackendThatIsNotKnownIsACondition(t *testing.T) {
	r := route(t, "r", "a", "/x", 1)
	s := Review(Empty().Apply(put(r)...), r)
	if !s.Accepted || len(s.Conditions) != 2 || s.Conditions[1].Reason != "BackendNotFound" || s.Conditions[1].Field != "spec.parentRefs[0].name" {
		t.Errorf("status: %+v", s)
	}
	m := Empty().Apply(Change{Put: r}, Change{PutInstance: &Instance{Service: "a", ID: "1"}})
	if s := Review(m, r); len(s.Conditions) != 1 {
		t.Errorf("with an instance: %+v", s)
	}
}

func TestTelemetryOfAServiceIsLaidOverTheMeshes(t *testing.T) {
	whole := object(t, `{apiVersion: outrigger.io/v1, kind: Telemetry, metadata: {name: mesh}, spec: {tracing: {sampling: 1%, propagation: [b3]}, accessLog: [{file: /a}]}}`)
	own := object(t, `{apiVersion: outrigger.io/v1, kind: Telemetry, metadata: {name: own}, spec: {targetRef: {kind: Service, name: a}, tracing: {sampling: 50%}, accessLog: []}}`)
	stored, err := json.Marshal(own)
	if err != nil {
		t.Fatal(err)
	}
	// An empty list turns logs off, also after the object was stored.
	m := Empty().Apply(put(whole, object(t, string(stored)))...)
	a, b := m.TelemetryOf("a"), m.TelemetryOf("b")
	if *a.Tracing.Sampling != 50 || a.Tracing.Propagation[0] != "b3" || a.AccessLog == nil || len(a.AccessLog) != 0 {
		t.Errorf("of a: %+v %+v", a.Tracing, a.AccessLog)
	}
	if *b.Tracing.Sampling != 1 || len(b.AccessLog) != 1 {
		t.Errorf("of b: %+v %+v", b.Tracing, b.AccessLog)
	}
}

func TestTapsEnd(t *testing.T) {
	tap := at(object(t, `{apiVersion: outrigger.io/v1, kind: Tap, metadata: {name: t}, spec: {targetRef: {kind: Service, name: a}, expires: 2h}}`), 0)
	m := Empty().Apply(put(tap)...)
	if got := len(m.TapsOf("a", time.Unix(7199, 0))); got != 1 {
		t.Errorf("before the end: got %d taps, want 1", got)
	}
	if got := len(m.TapsOf("a", time.Unix(7200, 0))); got != 0 {
		t.Errorf("after the end: got %d taps, want 0", got)
	}
}

func TestValuesAreWrittenAsTheyAreRead(t *testing.T) {
	cases := []struct {
		in, want string
		v        interface {
			UnmarshalText([]byte) error
			MarshalText() ([]byte, error)
		}
	}{
		{"90s", "1m30s", new(Duration)}, {"1h", "1h", new(Duration)}, {"0s", "0s", new(Duration)}, {"1m0s", "1m", new(Duration)},
		{"65536", "64KiB", new(Size)}, {"1 MiB", "1MiB", new(Size)}, {"10kB", "10000B", new(Size)}, {"0", "0B", new(Size)},
		{"0.50%", "0.5%", new(Percent)}, {"100%", "100%", new(Percent)},
		{"5xx", "5xx", new(StatusMatch)}, {">= 400", ">= 400", new(StatusMatch)}, {"<500", "<500", new(StatusMatch)}, {"400-499", "400-499", new(StatusMatch)},
		{">500ms", "> 500ms", new(DurationMatch)},
	}
	for _, c := range cases {
		if err := c.v.UnmarshalText([]byte(c.in)); err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if got, _ := c.v.MarshalText(); string(got) != c.want {
			t.Errorf("%s: got %s, want %s", c.in, got, c.want)
		}
	}
	for _, bad := range []struct {
		in string
		v  interface{ UnmarshalText([]byte) error }
	}{
		{"-1s", new(Duration)}, {"5", new(Duration)}, {"1e3KiB", new(Size)}, {"-1", new(Size)}, {"99999999999999GiB", new(Size)},
		{"101%", new(Percent)}, {"NaN%", new(Percent)}, {"0.2", new(Percent)}, {"6xx", new(StatusMatch)}, {"500-400", new(StatusMatch)}, {"< 100", new(StatusMatch)}, {"> 5", new(DurationMatch)},
	} {
		if err := bad.v.UnmarshalText([]byte(bad.in)); err == nil {
			t.Errorf("%T %s was accepted", bad.v, bad.in)
		}
	}
}
