// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

// oversized waits until a client has met a response of more than a megabyte.
func oversized(t *testing.T, c *client.Client) {
	t.Helper()
	waitStatus(t, c, "told of an oversized response", func(st client.Status) bool {
		for _, s := range st.Sources {
			if s.Oversized > 0 && strings.Contains(s.LastError, "a response has more than the 1048576 bytes that are accepted") {
				return true
			}
		}
		return false
	})
}

func TestAnOversizedResponseIsNotTakenAndTheLastGoodOneStays(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads"})
			p := good(mode, "1")
			s.Set(t, nodeID, snapshot(t, "1", p))
			c := start(t, bootstrapFor(t, mode, s), settings{maxResponse: 1 << 20})
			before := c.wait(t, "the good world", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
			count := len(c.snapshots())
			large := cluster(mode, "large")
			large.AltStatName = strings.Repeat("x", 2<<20)
			p[resourcev3.ClusterType] = []types.Resource{cluster(mode, "orders"), cluster(mode, "payments"), large}
			p[resourcev3.EndpointType] = append(p[resourcev3.EndpointType], endpoints("large"))
			s.Set(t, nodeID, snapshot(t, "2", p))
			oversized(t, c.client)
			for _, snap := range c.snapshots()[count:] {
				if snap.Clusters["large"] != nil || snap.Clusters["orders"] != before.Clusters["orders"] || snap.Listeners["in"] == nil {
					t.Errorf("a snapshot does not hold the last good clusters: %v", snap.Clusters)
				}
			}
			p[resourcev3.ClusterType] = []types.Resource{cluster(mode, "orders"), cluster(mode, "payments"), cluster(mode, "large")}
			s.Set(t, nodeID, snapshot(t, "3", p))
			c.wait(t, "the next good world", func(s *resource.Snapshot) bool { return s.Clusters["large"] != nil })
		})
	}
}

func TestAnOversizedFileIsNotTakenAndTheLastGoodOneStays(t *testing.T) {
	dir := t.TempDir()
	cds := filepath.Join(dir, "cds.yaml")
	replace(t, cds, cdsFile("a"))
	replace(t, filepath.Join(dir, "lds.json"), ldsFile)
	c := start(t, fileBootstrap(dir), settings{maxResponse: 1 << 20})
	c.wait(t, "the cluster of the file", has("a"))
	replace(t, cds, cdsFile("a", "b")+"#"+strings.Repeat("x", 1<<20))
	oversized(t, c.client)
	replace(t, cds, cdsFile("a", "c"))
	c.wait(t, "the next good file", has("a", "c"))
	for _, s := range c.snapshots() {
		if s.Clusters["a"] == nil || s.Clusters["b"] != nil {
			t.Errorf("a snapshot does not hold a good file: %v", s.Clusters)
		}
	}
}

func TestAResponseAsLargeAsTheLimitIsTaken(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{ADS: true})
	p := good("ads", "1")
	large := cluster("ads", "orders")
	large.AltStatName = strings.Repeat("x", 1<<20-2<<10)
	p[resourcev3.ClusterType][0] = large
	s.Set(t, nodeID, snapshot(t, "1", p))
	c := start(t, bootstrapFor(t, "ads", s), settings{maxResponse: 1 << 20})
	c.wait(t, "a large cluster", func(s *resource.Snapshot) bool { return s.Clusters["orders"] != nil })
}
