// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const subsetFields = `fallback_policy: DEFAULT_SUBSET, default_subset: {stage: prod, n: 1}, subset_selectors: [
	{keys: [version, stage], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [stage]}, {keys: [stage], fallback_policy: ANY_ENDPOINT},
	{keys: [id], single_host_per_subset: true}, {keys: [a], fallback_policy: NO_FALLBACK}, {keys: [b], fallback_policy: DEFAULT_SUBSET}],
	locality_weight_aware: true, scale_locality_weight: true, panic_mode_any: true, list_as_any: true, metadata_fallback_policy: FALLBACK_LIST`

const typedSubset = "type.googleapis.com/envoy.extensions.load_balancing_policies.subset.v3.Subset"

func typedPolicies(url, fields string) string {
	return `{policies: [{typed_extension_config: {name: x, typed_config: {"@type": ` + url + `, ` + fields + `}}}]}`
}

func TestSubsetsAreReadInBothForms(t *testing.T) {
	want := resource.Subsets{
		Selectors: []resource.SubsetSelector{
			{Keys: []string{"stage", "version"}, Fallback: resource.SubsetKeys, FallbackKeys: []string{"stage"}},
			{Keys: []string{"stage"}, Fallback: resource.SubsetAny}, {Keys: []string{"id"}, SingleHost: true, Fallback: resource.SubsetInherit},
			{Keys: []string{"a"}, Fallback: resource.SubsetNoFallback}, {Keys: []string{"b"}, Fallback: resource.SubsetDefault},
		},
		Fallback: resource.SubsetDefault, Default: []resource.Label{{Key: "n", Value: "1"}, resource.TextLabel("stage", "prod")},
		LocalityWeightAware: true, ScaleLocalityWeight: true, PanicModeAny: true, ListAsAny: true, FallbackList: true,
	}
	inner := typedPolicies("type.googleapis.com/envoy.extensions.load_balancing_policies.maglev.v3.Maglev", "table_size: 251")
	for _, text := range []string{
		"lb_policy: MAGLEV, lb_subset_config: {" + subsetFields + "}",
		"load_balancing_policy: " + typedPolicies(typedSubset, subsetFields+", allow_redundant_keys: true, subset_lb_policy: "+inner),
	} {
		lb := must[resource.Cluster](t, decode.Cluster, "{name: a, "+eds+", "+text+"}").LB
		want.RedundantKeys = strings.Contains(text, "allow_redundant_keys") // of the typed form only
		if lb.Policy != resource.Maglev || !reflect.DeepEqual(lb.Subsets, &want) {
			t.Errorf("%s with %+v, want maglev with %+v", lb.Policy, lb.Subsets, &want)
		}
	}
	for _, none := range []string{"", "lb_subset_config: {fallback_policy: ANY_ENDPOINT}, "} { // Envoy's: no selectors, no subsets
		if c := must[resource.Cluster](t, decode.Cluster, "{name: a, "+none+eds+"}"); c.LB.Subsets != nil {
			t.Errorf("%q: %+v, want no subsets", none, c.LB.Subsets)
		}
	}
}

func TestEqualValuesOfLabelsHaveOneText(t *testing.T) {
	a := must[resource.Assignment](t, decode.Endpoints, `{cluster_name: a, endpoints: [{lb_endpoints: [{
		endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}, metadata: {filter_metadata: {other: {n: 1}, envoy.lb:
		{text: "1", n: 1.0, yes: true, nothing: null, list: [a, 1], map: {b: 1, a: [x]}}}}}]}]}`)
	e := &a.Localities[0].Endpoints[0]
	for key, want := range map[string]string{"text": `"1`, "n": "1", "yes": "true", "nothing": "null", "list": `["a",1]`, "map": `{"a":["x"],"b":1}`} {
		if got, items, list, ok := e.LBValue(key); got != want || !ok || list != (key == "list") || list && !reflect.DeepEqual(items, []string{`"a`, "1"}) {
			t.Errorf("%s is %q, %q, %v, %v; want %q", key, got, items, list, ok, want)
		}
	}
	if _, _, _, ok := e.LBValue("other"); ok {
		t.Error("there is a value of another namespace")
	}
}

func TestCriteriaOfRoutesAreMerged(t *testing.T) {
	match := func(fields string) string { return "metadata_match: {filter_metadata: {envoy.lb: {" + fields + "}}}" }
	rc := must[resource.RouteConfig](t, decode.Route, `{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [
		{match: {prefix: /one}, route: {cluster: a, `+match("stage: prod, n: 1")+`}},
		{match: {prefix: /header}, route: {cluster_header: x-to, `+match("stage: prod")+`}},
		{match: {prefix: /none}, route: {cluster: a, metadata_match: {filter_metadata: {other: {stage: prod}}}}},
		{match: {prefix: /}, route: {`+match("stage: prod, v: a, fallback_list: [{v: b}, {v: c, stage: dev}]")+`, weighted_clusters: {clusters: [
			{name: a, weight: 1}, {name: b, weight: 1, `+match("v: b, w: 2")+`}, {name: c, weight: 1, `+match("fallback_list: []")+`}]}}}]}]}`)
	text := func(m *resource.MetadataMatch) string {
		if m == nil {
			return "none"
		}
		var out []string
		for _, l := range m.Labels {
			out = append(out, l.Key+"="+l.Value)
		}
		return strings.Join(out, " ") + fmt.Sprint(" ", m.Overrides)
	}
	routes := rc.VirtualHosts[0].Routes
	const list = `fallback_list=[{"v":"b"},{"stage":"dev","v":"c"}]`
	const overrides = ` [[{v "b}] [{stage "dev} {v "c}]]`
	for i, tt := range []struct {
		got  *resource.MetadataMatch
		want string
	}{
		{routes[0].Action.Clusters[0].MetadataMatch, `n=1 stage="prod []`},
		{routes[1].Action.MetadataMatch, `stage="prod []`},
		{routes[2].Action.Clusters[0].MetadataMatch, `none`},
		{routes[3].Action.Clusters[0].MetadataMatch, list + ` stage="prod v="a` + overrides},
		{routes[3].Action.Clusters[1].MetadataMatch, list + ` stage="prod v="b w=2` + overrides},
		{routes[3].Action.Clusters[2].MetadataMatch, `fallback_list=[] stage="prod v="a []`},
	} {
		if got := text(tt.got); got != tt.want {
			t.Errorf("%d: %s, want %s", i, got, tt.want)
		}
	}
}

func TestBadSubsetsAreRefusedByFieldPath(t *testing.T) {
	const at = "lb_subset_config.subset_selectors[0]"
	for fields, want := range map[string]string{
		"subset_selectors: [{}]":                                                                         at + ".keys: must be 1 to 16, are 0",
		"subset_selectors: [{keys: [a, b]}, {keys: [b, a]}]":                                             "lb_subset_config.subset_selectors[1].keys: are those of subset_selectors[0]",
		"subset_selectors: [{keys: [a], fallback_keys_subset: [a]}]":                                     at + ".fallback_keys_subset: needs fallback_policy KEYS_SUBSET",
		"subset_selectors: [{keys: [a, b], fallback_policy: KEYS_SUBSET}]":                               at + ".fallback_keys_subset: is empty",
		"subset_selectors: [{keys: [a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [c]}]":    at + ".fallback_keys_subset: must be a part of keys",
		"subset_selectors: [{keys: [a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [b, a]}]": at + ".fallback_keys_subset: must not be all of keys",
		"subset_selectors: [" + strings.Repeat("{keys: [a]}, ", 65) + "]":                                "lb_subset_config.subset_selectors: has 65 selectors, at most 64 are accepted",
		"subset_selectors: [{keys: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]}]":                at + ".keys: must be 1 to 16, are 17",
		"fallback_policy: 7, subset_selectors: [{keys: [a]}]":                                            "lb_subset_config.fallback_policy",
		"subset_selectors: [{keys: [a], fallback_policy: 9}]":                                            at + ".fallback_policy",
	} {
		_, err := from(t, decode.Cluster, "{name: a, "+eds+", lb_subset_config: {"+fields+"}}")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
	var many strings.Builder
	for i := range 33 {
		fmt.Fprintf(&many, "k%d: a, ", i)
	}
	for fields, want := range map[string]string{
		many.String(): `route.metadata_match.filter_metadata["envoy.lb"]: has more than 32 keys`,
		"fallback_list: [{" + many.String() + "}]":            `["envoy.lb"].fallback_list: has an entry of more than 32 keys`,
		"fallback_list: [" + strings.Repeat("{}, ", 17) + "]": `fallback_list: has 17 entries, at most 16 are accepted`,
	} {
		_, err := from(t, decode.Route, `{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /},
			route: {cluster: a, metadata_match: {filter_metadata: {envoy.lb: {`+fields+`}}}}}]}]}`)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
	nested := typedPolicies(typedSubset, "subset_selectors: [{keys: [b]}], subset_lb_policy: {policies: []}")
	for text, want := range map[string]string{
		"load_balancing_policy: " + typedPolicies(typedSubset, "subset_selectors: [{keys: [a]}]"):                            "subset_lb_policy: value is required",
		"load_balancing_policy: " + typedPolicies(typedSubset, "subset_selectors: [{keys: [a]}], subset_lb_policy: "+nested): "must not be within another subset policy",
	} {
		_, err := from(t, decode.Cluster, "{name: a, "+eds+", "+text+"}")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
