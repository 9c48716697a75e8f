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

func fallbackCluster(fallback string) string {
	return "{name: a, type: STATIC, metadata: {filter_metadata: {io.outrigger: {fallback: " + fallback + "}}}}"
}

func TestFallbacks(t *testing.T) {
	for text, want := range map[string]resource.Fallback{
		`{}`:                        {Static: &resource.DirectResponse{Status: 200, Body: []byte{}}},
		`{body: x}`:                 {Static: &resource.DirectResponse{Status: 200, Body: []byte("x"), ContentType: "text/plain"}},
		`{cluster: b}`:              {Cluster: "b"},
		`{cluster: b, status: 204}`: {Cluster: "b", Static: &resource.DirectResponse{Status: 204, Body: []byte{}}},
		`{cached: {}}`:              {Cached: &resource.CachedFallback{MaxAge: 10 * time.Minute, MaxBody: 64 << 10}},
		`{cached: {maxAgeMs: 1, maxBodyBytes: 0}}`: {Cached: &resource.CachedFallback{MaxAge: time.Millisecond}},
	} {
		if got := must[resource.Cluster](t, decode.Cluster, fallbackCluster(text)).Fallback; got == nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s is %+v, want %+v", text, got, want)
		}
	}
}

func TestFallbacksThatCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		`{cluster: a}`:                      "fallback.cluster: is the cluster itself",
		`{cached: {maxAgeMs: 0}}`:           "fallback.cached.maxAgeMs: must be between 1 and 86400000",
		`{cached: {maxBodyBytes: 1048577}}`: "fallback.cached.maxBodyBytes: must be between 0 and 1048576",
		`{cached: {vary: x}}`:               "unknown field",
		`{status: 700}`:                     "fallback.status: must be between 200 and 599",
	} {
		if _, err := from(t, decode.Cluster, fallbackCluster(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Whoever falls back to a cluster waits for it, and it is kept for whoever does.
func TestTheClusterOfAFallbackIsReferredTo(t *testing.T) {
	want := []decode.Ref{{Kind: decode.Cluster, Name: "b"}}
	c, err := from(t, decode.Cluster, fallbackCluster(`{cluster: b, cached: {}}`))
	if err != nil || !reflect.DeepEqual(c.Refs, want) {
		t.Errorf("a cluster refers to %+v, %v", c.Refs, err)
	}
	if c, err := from(t, decode.Cluster, fallbackCluster(`{cached: {}}`)); err != nil || len(c.Refs) > 0 {
		t.Errorf("a cluster without refers to %+v, %v", c.Refs, err)
	}
	r, err := from(t, decode.Route, `{name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [
		{match: {prefix: /}, route: {cluster: a}, metadata: {filter_metadata: {io.outrigger: {fallback: {cluster: b}}}}}]}]}`)
	want = append([]decode.Ref{{Kind: decode.Cluster, Name: "a"}}, want...)
	if err != nil || !reflect.DeepEqual(r.Refs, want) {
		t.Errorf("a route refers to %+v, %v", r.Refs, err)
	}
}
