// SPDX-License-Identifier: Apache-2.0

package encode_test

import (
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

func checkedPolicy(h mesh.HealthCheck) *mesh.TrafficPolicy {
	return &mesh.TrafficPolicy{Spec: mesh.TrafficPolicySpec{HealthCheck: &h}}
}

func TestHealthChecksAreMadeByWhoIsToMakeThem(t *testing.T) {
	every := mesh.Duration(2 * time.Minute)
	p := checkedPolicy(mesh.HealthCheck{HTTP: &mesh.HTTPHealthCheck{Path: "/healthz", Statuses: []mesh.StatusMatch{{Min: 200, Max: 299}}}, Interval: &every})
	callers, err := encode.ServiceCluster("s", p, nil, encode.Sidecar)
	if err != nil {
		t.Fatal(err)
	}
	app, err := encode.AppCluster("s", "127.0.0.1:80", false, p)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*corev3.HealthCheck{"callers": callers.GetHealthChecks()[0], "the own sidecar": app.GetHealthChecks()[0]} {
		h := c.GetHttpHealthCheck()
		if h.GetPath() != "/healthz" || h.GetHost() != "s" || h.GetExpectedStatuses()[0].GetStart() != 200 || h.GetExpectedStatuses()[0].GetEnd() != 300 ||
			c.GetInterval().AsDuration() != 2*time.Minute || c.GetNoTrafficInterval().AsDuration() != 2*time.Minute || c.GetTimeout().AsDuration() != time.Second ||
			c.GetUnhealthyThreshold().GetValue() != 3 || c.GetHealthyThreshold().GetValue() != 2 {
			t.Errorf("%s: %v", name, c)
		}
	}
	// Without traffic an instance of a service is checked rarely by callers, of whom there
	// may be many, but always by its own sidecar.
	p = checkedPolicy(mesh.HealthCheck{TCP: &mesh.TCPHealthCheck{}})
	callers, _ = encode.ServiceCluster("s", p, nil, encode.Sidecar)
	app, _ = encode.AppCluster("s", "127.0.0.1:80", false, p)
	if c := callers.GetHealthChecks()[0]; c.GetNoTrafficInterval() != nil || c.GetIntervalJitterPercent() == 0 || c.GetTcpHealthCheck() == nil {
		t.Errorf("callers: %v", c)
	}
	if c := app.GetHealthChecks()[0]; c.GetNoTrafficInterval().AsDuration() != 5*time.Second {
		t.Errorf("the own sidecar: %v", c)
	}
	p = checkedPolicy(mesh.HealthCheck{GRPC: &mesh.GRPCHealthCheck{Service: "x"}})
	callers, _ = encode.ServiceCluster("s", p, nil, encode.Sidecar)
	if c := callers.GetHealthChecks()[0].GetGrpcHealthCheck(); c.GetServiceName() != "x" || c.GetAuthority() != "s" {
		t.Errorf("gRPC: %v", c)
	}
	if c, _ := encode.ServiceCluster("s", p, nil, encode.GRPC); len(c.GetHealthChecks()) > 0 {
		t.Error("clients that check nothing are told to")
	}
}

func TestCallersDoNotCheckWhatItsOwnSidecarDoes(t *testing.T) {
	list := []*mesh.Instance{{ID: "bare", Address: "10.0.0.1", Port: 1}, {ID: "sidecar", Address: "10.0.0.2", Port: 1, Node: "s~sidecar"}}
	for _, checked := range []bool{true, false} {
		a, err := encode.Assignment("s", list, nil, false, checked)
		if err != nil {
			t.Fatal(err)
		}
		e := a.GetEndpoints()[0].GetLbEndpoints()
		for i, want := range []bool{false, checked} {
			if got := e[i].GetEndpoint().GetHealthCheckConfig().GetDisableActiveHealthCheck(); got != want {
				t.Errorf("policy has a check: %v, %s: switched off is %v", checked, list[i].ID, got)
			}
		}
	}
}
