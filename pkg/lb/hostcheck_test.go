// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func checkedCluster(h *resource.HealthCheck) *resource.Cluster {
	return &resource.Cluster{Name: "c", LB: resource.LoadBalancing{Policy: resource.RoundRobin}, Health: h}
}

func of(list ...resource.Endpoint) *resource.Assignment {
	for i := range list {
		list[i].Address, list[i].Weight = resource.Address{Host: "10.0.0.1", Port: uint16(i + 1)}, 1
	}
	return &resource.Assignment{Localities: []resource.Locality{{Endpoints: list}}}
}

func TestNewHostsWaitForTheirFirstCheck(t *testing.T) {
	c, changes := new(Cluster), 0
	c.Watch(func() { changes++ })
	c.Update(checkedCluster(&resource.HealthCheck{}), of(resource.Endpoint{}, resource.Endpoint{Check: &resource.EndpointCheck{Disabled: true}}))
	h := c.View().Hosts()
	if !h[0].Failed() || !h[0].Unchecked() || h[1].Failed() || c.View().HealthyLen() != 1 || changes != 1 {
		t.Errorf("checked: failed %v, unchecked %v; not checked: failed %v", h[0].Failed(), h[0].Unchecked(), h[1].Failed())
	}
	h[0].SetFailed(false)
	h[0].SetChecked()
	c.Update(checkedCluster(&resource.HealthCheck{}), of(resource.Endpoint{}, resource.Endpoint{}))
	if h[0].Failed() || h[1].Failed() || c.View().HealthyLen() != 2 {
		t.Error("hosts that stay have lost their verdict")
	}
}

// The rows are all that is said of a host, and what is made of it.
func TestHealthIsJoinedFromAllThatIsSaid(t *testing.T) {
	for _, tt := range []struct {
		name                      string
		eds                       resource.HealthStatus
		failed, degraded, ejected bool
		want                      string
	}{
		{"nothing is said", resource.HealthUnknown, false, false, false, "healthy"},
		{"EDS says healthy, checks have failed", resource.Healthy, true, false, false, "unhealthy"},
		{"EDS says unhealthy, checks pass", resource.Unhealthy, false, false, false, "unhealthy"},
		{"EDS says draining, checks pass with degraded", resource.Draining, false, true, false, "unhealthy"},
		{"EDS says timeout", resource.HealthTimeout, false, false, false, "unhealthy"},
		{"checks pass, traffic fails", resource.Healthy, false, false, true, "unhealthy"},
		{"EDS says degraded", resource.Degraded, false, false, false, "degraded"},
		{"checks say degraded", resource.Healthy, false, true, false, "degraded"},
		{"degraded, and checks have failed", resource.Degraded, true, true, false, "unhealthy"},
		{"degraded, and ejected", resource.HealthUnknown, false, true, true, "unhealthy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := new(Cluster)
			c.Update(checkedCluster(nil), of(resource.Endpoint{Health: tt.eds}))
			h := c.View().Hosts()[0]
			h.SetFailed(tt.failed)
			h.SetDegraded(tt.degraded)
			h.SetEjected(tt.ejected)
			got := "unhealthy"
			switch {
			case h.Healthy():
				got = "healthy"
			case h.Degraded():
				got = "degraded"
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAWordOfALoopIsTakenOnce(t *testing.T) {
	c := new(Cluster)
	c.Update(checkedCluster(nil), of(resource.Endpoint{}))
	h := c.View().Hosts()[0]
	if h.TakeFailNow() || !h.FailNow() || h.FailNow() || !h.TakeFailNow() || h.TakeFailNow() {
		t.Error("not taken once")
	}
	h.SetFailed(true)
	if h.FailNow() {
		t.Error("a host that has failed is failed again")
	}
}

func TestHostsThatNoCheckHasSeenMayCountAsAbsent(t *testing.T) {
	for _, ignore := range []bool{false, true} {
		cfg := checkedCluster(&resource.HealthCheck{})
		cfg.LB.IgnoreNewHosts = ignore
		c := new(Cluster)
		c.Update(cfg, of(resource.Endpoint{}, resource.Endpoint{}))
		if !c.View().InPanic() {
			t.Errorf("ignore %v: no host is known to be healthy, and there is no panic", ignore)
		}
		for _, h := range c.View().Hosts() {
			h.SetFailed(false)
			h.SetChecked()
		}
		c.HealthChanged()
		// Three more than there were would be panic: 2 of 5 are healthy.
		c.Update(cfg, of(make([]resource.Endpoint, 5)...))
		if v := c.View(); v.HealthyLen() != 2 || v.InPanic() == ignore {
			t.Errorf("ignore %v: %d healthy, panic %v", ignore, v.HealthyLen(), v.InPanic())
		}
		if p := c.View().Priorities()[0]; ignore && (p.HealthyLoad != 100 || p.Total() != 5 || c.View().ExcludedLen() != 3) {
			t.Errorf("%+v", p)
		}
		// One that was seen and failed is sick like any other.
		for _, h := range c.View().Hosts() {
			h.SetChecked()
		}
		c.HealthChanged()
		if !c.View().InPanic() {
			t.Errorf("ignore %v: no panic", ignore)
		}
	}
}
