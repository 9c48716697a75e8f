// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/rest"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
)

func TestEjectionsCostLittleHoweverManyThereAre(t *testing.T) {
	var all []sidecarservice.Ejected
	for i := range 1000 {
		all = append(all, sidecarservice.Ejected{Node: fmt.Sprintf("web~%03d", i), Cluster: "outbound|orders", Endpoint: "10.0.0.1:80", Detector: "D", Since: time.Now().Add(-time.Hour)})
	}
	all = append(all, sidecarservice.Ejected{Node: "web~x", Cluster: "outbound|other", Endpoint: "10.0.0.2:80"})
	e := explainer{ejected: func() []sidecarservice.Ejected { return all }}
	var list []rest.ExplainStep
	allocated := testing.AllocsPerRun(1, func() {
		list = []rest.ExplainStep{{Name: "10.0.0.1:80", Object: "orders/1", Reason: "r"}, {Name: "10.0.0.2:80", Object: "orders/2"}}
		e.addEjections(list)
	})
	const want = "r; ejected by web~000 (60m ago, D), web~001 (60m ago, D), web~002 (60m ago, D) and 997 more"
	if list[0].Reason != want || list[1].Reason != "" {
		t.Errorf("got %q and %q, want %q", list[0].Reason, list[1].Reason, want)
	}
	if allocated > 200 {
		t.Errorf("%v allocations for three names", allocated)
	}
}
