// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
)

func TestDiscoveryIsCountedUnderEnvoysNames(t *testing.T) {
	st := client.Status{Sources: []client.SourceStatus{
		{Types: []client.TypeStatus{{Type: "cds", Version: "7", Accepted: 3, Rejected: 1}, {Type: "eds", Accepted: 9}}},
		{Types: []client.TypeStatus{{Type: "cds", Accepted: 2}}},
	}}
	got := map[string]uint64{}
	for _, s := range discoverySamples(&st) {
		got[s.Name] = s.Value
	}
	want := map[string]uint64{
		"cluster_manager.cds.update_attempt": 8, "cluster_manager.cds.update_success": 5, "cluster_manager.cds.update_rejected": 1,
		"cluster_manager.cds.version": lb.HashBytes([]byte("7")), // xxHash64, as Envoy's
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s is %d, want %d", name, got[name], n)
		}
	}
}
