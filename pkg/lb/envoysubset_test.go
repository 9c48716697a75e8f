// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/freeport/freeporttest"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

type (
	object = map[string]any
	list   = []any
)

// subsetHosts are the endpoints' labels; "|" separates the elements of a list.
var subsetHosts = []string{
	"stage=prod version=1.0 type=std xlarge=true", "stage=prod version=1.0 type=std", "stage=prod version=1.1 type=std zone=a|b",
	"stage=prod version=1.1 type=std", "stage=prod version=1.0 type=bigmem", "stage=prod version=1.1 type=bigmem zone=b", "stage=dev version=1.2-pre type=std zone=c|c",
}

var subsetSelectors = []resource.SubsetSelector{
	{Keys: []string{"stage", "type"}, Fallback: resource.SubsetInherit},
	{Keys: []string{"stage", "version"}, Fallback: resource.SubsetKeys, FallbackKeys: []string{"version"}},
	{Keys: []string{"version"}, Fallback: resource.SubsetAny},
	{Keys: []string{"version", "xlarge"}, Fallback: resource.SubsetDefault},
	{Keys: []string{"type"}, Fallback: resource.SubsetNoFallback},
	{Keys: []string{"zone"}, Fallback: resource.SubsetInherit},
	{Keys: []string{"type", "version", "xlarge"}, Fallback: resource.SubsetKeys, FallbackKeys: []string{"version", "xlarge"}},
}

type subsetCase struct {
	name    string
	subsets resource.Subsets
}

func (c *subsetCase) selectors() []resource.SubsetSelector {
	if c.subsets.Selectors != nil {
		return c.subsets.Selectors
	}
	return subsetSelectors
}

// subsetCases have the selectors above where they have none.
var subsetCases = []subsetCase{
	{"none", resource.Subsets{}},
	{"any", resource.Subsets{Fallback: resource.SubsetAny}},
	{"default", resource.Subsets{Fallback: resource.SubsetDefault, Default: textLabels("stage=prod version=1.0 type=std")}},
	{"default-empty", resource.Subsets{Fallback: resource.SubsetDefault, Default: textLabels("stage=test")}},
	{"default-of-nothing", resource.Subsets{Fallback: resource.SubsetDefault}},
	{"panic", resource.Subsets{Fallback: resource.SubsetDefault, Default: textLabels("stage=test"), PanicModeAny: true}},
	{"panic-without-fallback", resource.Subsets{PanicModeAny: true}},
	{"lists", resource.Subsets{ListAsAny: true, Fallback: resource.SubsetDefault, Default: textLabels("zone=b")}},
	// No selector's keys begin another's: of those Envoy 1.40 loses the fallback when
	// it has sorted the longer one to the front.
	{"redundant", resource.Subsets{RedundantKeys: true, Fallback: resource.SubsetAny, Selectors: []resource.SubsetSelector{
		{Keys: []string{"zone"}, Fallback: resource.SubsetInherit}, {Keys: []string{"stage", "type"}, Fallback: resource.SubsetNoFallback},
		{Keys: []string{"stage", "version"}, Fallback: resource.SubsetKeys, FallbackKeys: []string{"version"}},
		{Keys: []string{"version"}, Fallback: resource.SubsetNoFallback}, {Keys: []string{"type", "xlarge"}, Fallback: resource.SubsetDefault},
	}}},
}

var subsetCriteria = []string{
	"", "stage=prod", "stage=prod type=std", "stage=prod type=bigmem", "stage=dev type=std", "stage=test type=std", "stage=prod version=1.0",
	"stage=prod version=1.2-pre", "stage=prod version=7", "version=1.0", "version=1.2-pre", "version=7", "version=1.0 xlarge=true",
	"version=1.1 xlarge=true", "type=std", "type=tiny", "zone=a", "zone=b", "zone=c", "zone=d", "other=1", "stage=prod type=std other=1",
	"type=std version=1.0 xlarge=true", "type=tiny version=1.0 xlarge=true", "type=tiny version=1.1 xlarge=true", "stage=prod type=std version=1.1",
}

func textLabels(text string) (out []resource.Label) {
	for _, f := range strings.Fields(text) {
		key, value, _ := strings.Cut(f, "=")
		out = resource.MergeLabels(out, []resource.Label{resource.TextLabel(key, value)})
	}
	return out
}

func TestSubsetsAreThoseOfEnvoy(t *testing.T) {
	binary, hosts := envoyBinary(t), sayingHosts(t, len(subsetHosts))
	address := freeporttest.Address(t)
	runEnvoy(t, binary, address, subsetBootstrap(netip.MustParseAddrPort(address), hosts))
	client := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	a := &resource.Assignment{Localities: []resource.Locality{{}}}
	for i, text := range subsetHosts {
		e := resource.Endpoint{
			Address:  resource.Address{Host: hosts[i].Addr().String(), Port: hosts[i].Port()},
			Metadata: resource.Metadata{resource.LBNamespace: {}},
		}
		for _, l := range textLabels(text) {
			value := l.Value[1:]
			if items := strings.Split(value, "|"); len(items) > 1 {
				o := resource.OtherLabel{Whole: "[" + value + "]", List: true}
				for _, item := range items {
					o.Items = append(o.Items, `"`+item)
				}
				if e.OtherLabels == nil {
					e.OtherLabels = map[string]resource.OtherLabel{}
				}
				e.OtherLabels[l.Key] = o
			} else {
				e.Metadata[resource.LBNamespace][l.Key] = value
			}
		}
		a.Localities[0].Endpoints = append(a.Localities[0].Endpoints, e)
	}
	const tries = 20 // round robin: all hosts have had their turn
	for i := range subsetCases {
		c := &subsetCases[i]
		t.Run(c.name, func(t *testing.T) {
			sub := c.subsets
			sub.Selectors = c.selectors()
			cfg := resource.LoadBalancing{Policy: resource.RoundRobin, Subsets: &sub}
			cluster := lb.NewCluster(&resource.Cluster{LB: cfg, Static: a})
			p := lb.NewPicker(&cfg, 1)
			for n, text := range subsetCriteria {
				var got, want []string
				r := &lb.Request{Criteria: lb.NewCriteria(&resource.MetadataMatch{Labels: textLabels(text)})}
				for range tries {
					if h := p.Pick(cluster.View(), r); h != nil {
						got = append(got, h.Text())
					}
					if h := reachedByEnvoy(t, client, fmt.Sprintf("http://%s/%s/%d", address, c.name, n)); h != "" {
						want = append(want, h)
					}
				}
				slices.Sort(got)
				slices.Sort(want)
				if got, want := slices.Compact(got), slices.Compact(want); !slices.Equal(got, want) {
					t.Errorf("{%s} reaches %v, by Envoy %v", text, got, want)
				}
			}
		})
	}
}

// reachedByEnvoy is the host that a request came to, "" for none.
func reachedByEnvoy(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%s: %s", url, resp.Status)
	}
	return resp.Header.Get("X-Host")
}

func metadataOf(text string) object {
	fields := object{}
	for _, l := range textLabels(text) {
		if items := strings.Split(l.Value[1:], "|"); len(items) > 1 {
			fields[l.Key] = items
		} else {
			fields[l.Key] = l.Value[1:]
		}
	}
	return object{"filter_metadata": object{resource.LBNamespace: fields}}
}

// subsetBootstrap has a cluster for each case, and a route to it for all criteria.
func subsetBootstrap(listen netip.AddrPort, hosts []netip.AddrPort) any {
	var endpoints, clusters, routes list
	for i, h := range hosts {
		endpoints = append(endpoints, object{"endpoint": object{"address": socketOf(h)}, "metadata": metadataOf(subsetHosts[i])})
	}
	for i := range subsetCases {
		c := &subsetCases[i]
		const policies = "type.googleapis.com/envoy.extensions.load_balancing_policies."
		typed := object{
			"@type": policies + "subset.v3.Subset", "fallback_policy": []string{"NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"}[c.subsets.Fallback],
			"list_as_any": c.subsets.ListAsAny, "panic_mode_any": c.subsets.PanicModeAny, "allow_redundant_keys": c.subsets.RedundantKeys,
			"subset_lb_policy": object{"policies": list{object{"typed_extension_config": object{
				"name": "inner", "typed_config": object{"@type": policies + "round_robin.v3.RoundRobin"},
			}}}},
		}
		deflt := object{}
		for _, l := range c.subsets.Default {
			deflt[l.Key] = l.Value[1:]
		}
		var selectors list
		for _, s := range c.selectors() {
			o := object{"keys": s.Keys, "fallback_policy": []string{"NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET", "KEYS_SUBSET", "NOT_DEFINED"}[s.Fallback]}
			if s.FallbackKeys != nil {
				o["fallback_keys_subset"] = s.FallbackKeys
			}
			selectors = append(selectors, o)
		}
		typed["default_subset"], typed["subset_selectors"] = deflt, selectors
		clusters = append(clusters, object{
			"name": c.name, "type": "STATIC", "connect_timeout": "1s",
			"load_assignment": object{"cluster_name": c.name, "endpoints": list{object{"lb_endpoints": endpoints}}},
			"load_balancing_policy": object{"policies": list{object{"typed_extension_config": object{
				"name": "subset", "typed_config": typed,
			}}}},
		})
		for n, text := range subsetCriteria {
			action := object{"cluster": c.name}
			if text != "" {
				action["metadata_match"] = metadataOf(text)
			}
			routes = append(routes, object{"match": object{"path": fmt.Sprintf("/%s/%d", c.name, n)}, "route": action})
		}
	}
	return proxyBootstrap(listen, routes, clusters)
}
