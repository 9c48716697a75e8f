// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const healthURL = "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck"

func TestTheFilterOfHealthChecksIsRead(t *testing.T) {
	read := func(config string) (*resource.HealthFilter, error) {
		r, err := from(t, decode.Extension, `{name: h, typed_config: {"@type": `+healthURL+`, `+config+`}}`)
		if err != nil {
			return nil, err
		}
		return r.Value.(*resource.ExtensionConfig).Config.(*resource.HealthFilter), nil
	}
	got, err := read(`pass_through_mode: true, cache_time: 2s, headers: [{name: ":path", string_match: {exact: /healthz}}]`)
	want := &resource.HealthFilter{
		PassThrough: true, CacheTime: 2 * time.Second,
		Headers: []resource.HeaderMatch{{Name: ":path", Kind: resource.HeaderString, String: resource.StringMatch{Kind: resource.MatchExact, Value: "/healthz"}}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v %v", got, err)
	}
	got, err = read(`pass_through_mode: false, cluster_min_healthy_percentages: {b: {value: 12.9}, a: {value: 0}}`)
	if err != nil || !reflect.DeepEqual(got.MinHealthy, []resource.MinHealthy{{Cluster: "a"}, {Cluster: "b", Percent: 12}}) {
		t.Errorf("got %+v %v", got, err)
	}
	for config, want := range map[string]string{
		`cache_time: 1s`: "pass_through_mode: value is required",
		`pass_through_mode: false, cache_time: 1s`:                                     "cache_time: needs pass_through_mode",
		`pass_through_mode: true, cluster_min_healthy_percentages: {a: {value: 1}}`:    "cluster_min_healthy_percentages: must not be set with",
		`pass_through_mode: false, cluster_min_healthy_percentages: {a: {value: 101}}`: `cluster_min_healthy_percentages["a"]`,
		`pass_through_mode: false, headers: [{name: "a b"}]`:                           "headers[0].name",
	} {
		if _, err := read(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}
