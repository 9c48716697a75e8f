// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"strings"
	"testing"
)

// labelled is a model with instances of the service s: each "version stage".
func labelled(t *testing.T, instances ...string) *Model {
	t.Helper()
	changes := []Change{{Put: service(t, "s", "")}}
	for n, text := range instances {
		version, stage, _ := strings.Cut(text, " ")
		i := &Instance{Service: "s", ID: fmt.Sprint(n), Address: "10.0.0.1", Port: 80, Version: version}
		if stage != "" {
			i.Metadata = map[string]string{"stage": stage}
		}
		changes = append(changes, Change{PutInstance: i})
	}
	return Empty().Apply(changes...)
}

func TestLabelsThatNoInstanceHasAreSaidWithThoseThatThereAre(t *testing.T) {
	for _, c := range []struct {
		name      string
		instances []string
		labels    string
		want      string
	}{
		{"somebody has them", []string{"v1", "v2 canary"}, "{version: v2, stage: canary}", ""},
		{"a value", []string{"v1", "v2"}, "{version: v22}", `no instance of service "s" has version=v22 now: there are version=v1, version=v2; did you mean version=v2?; its requests get 503`},
		{"a value like no other", []string{"v1"}, "{version: blue-green}", `no instance of service "s" has version=blue-green now: there are version=v1; its requests get 503`},
		{"a key", []string{"v1 canary"}, "{verison: v1}", `no instance of service "s" has verison=v1 now: none has a label verison, there are the labels stage, version; did you mean version?; its requests get 503`},
		{"no labels at all", []string{""}, "{version: v1}", `no instance of service "s" has version=v1 now: they have no labels at all; its requests get 503`},
		{"each, and not together", []string{"v1 canary", "v2 main"}, "{version: v1, stage: main}", `no instance of service "s" has stage=main, version=v1 now: together there are (stage=canary, version=v1), (stage=main, version=v2); its requests get 503`},
		{"nobody there", nil, "{version: v1}", `service "s" has no instance now, and so none with version=v1; its requests get 503`},
		{"many", strings.Fields("a b c d e f g h i j"), "{version: zzz}", `no instance of service "s" has version=zzz now: there are version=a, version=b, version=c, version=d, version=e, version=f, version=g, version=h and 2 more; its requests get 503`},
	} {
		m := labelled(t, c.instances...)
		for _, kind := range []string{KindHTTPRoute, KindGRPCRoute} {
			r := object(t, `{apiVersion: gateway.networking.k8s.io/v1, kind: `+kind+`, metadata: {name: r}, spec: {parentRefs: [{kind: Service, name: s}], rules: [
  {backendRefs: [{name: s}, {name: s, labels: `+c.labels+`}, {name: s, weight: 0, labels: {none: x}}]}]}}`)
			m := m.Apply(Change{Put: r})
			var got, all string
			for _, x := range Review(m, r).Conditions {
				if x.Reason == ReasonNoSuchLabels {
					got += x.Field + " " + x.Message
				}
			}
			for _, x := range LabelFaults(m) {
				all += x.Field + " " + x.Message
			}
			want := c.want
			if want != "" {
				want = "spec.rules[0].backendRefs[1].labels " + want
			}
			if got != want || all != want {
				t.Errorf("%s, %s:\ngot  %s\nand  %s\nwant %s", c.name, kind, got, all, want)
			}
		}
	}
}

func TestLabelsOfAPolicysSubsetsThatNoInstanceHasAreSaid(t *testing.T) {
	p := object(t, `{apiVersion: outrigger.io/v1, kind: TrafficPolicy, metadata: {name: p}, spec: {targetRef: {kind: Service, name: s}, subsets: {
  selectors: [{keys: [verison], fallbackPolicy: any_endpoint}, {keys: [stage, version], fallbackPolicy: default_subset}], defaultSubset: {version: v9}}}}`)
	r := object(t, `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{kind: Service, name: s}], rules: [
  {backendRefs: [{name: s, labels: {verison: v1}}]}]}}`)
	m := labelled(t, "v1 main").Apply(Change{Put: p}, Change{Put: r})
	var got []string
	for _, f := range LabelFaults(m) {
		got = append(got, f.Object.String()+" "+f.Field+": "+f.Message)
	}
	want := []string{
		`HTTPRoute/r spec.rules[0].backendRefs[0].labels: no instance of service "s" has verison=v1 now: none has a label verison, there are the labels stage, version; did you mean version?; its requests go where fallbackPolicy any_endpoint of TrafficPolicy/p says`,
		`TrafficPolicy/p spec.subsets.defaultSubset: no instance of service "s" has version=v9 now: there are version=v1; did you mean version=v1?; requests that fall back to it get 503`,
		`TrafficPolicy/p spec.subsets.selectors[0].keys[0]: no instance of service "s" has the label verison now: there are the labels stage, version; did you mean version?`,
	}
	if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
	if m := labelled(t).Apply(Change{Put: p}); len(LabelFaults(m)) != 0 {
		t.Errorf("of a service without instances: %v", LabelFaults(m))
	}
}
