// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// reasonOf is why an endpoint gets requests or none, as explained.
func (r *rig) reasonOf(address string) (reason, outcome string) {
	r.t.Helper()
	e, err := r.p.Explain(Query{Authority: "x"})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range e.Endpoints {
		if s.Name == address {
			return s.Reason, e.Outcome
		}
	}
	r.t.Fatalf("%s is not explained: %+v", address, e)
	return "", ""
}

func TestEachEndpointIsExplained(t *testing.T) {
	r := newRig(t, func(s *resource.Snapshot) {
		c := withCluster(s, "c", "192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "192.0.2.4:80", "192.0.2.5:80", "192.0.2.6:80")
		c.LB.PanicThreshold, c.LB.HasPanic = 0, true
		first := &s.Assignments["c"].Localities[0]
		first.Zone = "z"
		first.Endpoints[0].Health = resource.Draining
		first.Endpoints[1].Health = resource.Unhealthy
		first.Endpoints[2].Health = resource.Degraded
		first.Endpoints[3].Weight = 7
		spare := assignment("c", "192.0.2.9:80").Localities[0]
		spare.Priority = 1
		s.Assignments["c"].Localities = append(s.Assignments["c"].Localities, spare)
	})
	for address, want := range map[string]string{
		"192.0.2.1:80": "eds_status_draining: left out while others are healthy, priority 0 with ",
		"192.0.2.2:80": "failed_eds_health: left out while others are healthy, priority 0 with ",
		"192.0.2.3:80": "degraded_eds_health: ",
		"192.0.2.4:80": "healthy, priority 0 with ",
		"192.0.2.9:80": "healthy, priority 1 with ",
	} {
		if got, _ := r.reasonOf(address); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if got, _ := r.reasonOf("192.0.2.4:80"); !strings.HasSuffix(got, ", weight 7, zone z, 0 requests under way") {
		t.Errorf("its weight and place: %s", got)
	}
	sound := []string{"192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"}
	r.snap.Assignments["c"] = assignment("c", sound...)
	spare := assignment("c", "192.0.2.9:80").Localities[0]
	spare.Priority = 1
	r.snap.Assignments["c"].Localities = append(r.snap.Assignments["c"].Localities, spare)
	r.apply(r.snap)
	got, outcome := r.reasonOf("192.0.2.9:80")
	if got != "healthy: left out while priorities before its own have enough healthy ones, priority 1 with 0 % of the requests, 0 requests under way" || outcome != "c, one of 3 endpoints" {
		t.Errorf("the next priority: %s; %s", got, outcome)
	}
}

func TestAnEjectionIsExplained(t *testing.T) {
	good, bad := backend(t, answering(200, "")), backend(t, answering(500, ""))
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", good, bad).Outlier = &resource.OutlierDetection{
			Consecutive5xx: 3, Enforcing5xx: 100,
			Interval: time.Hour, BaseEjection: time.Hour, MaxEjection: time.Hour, MaxEjectionPercent: 100,
		}
	})
	eventually(t, "it is ejected", func() bool {
		r.get("/")
		return len(r.p.Ejections()) > 0
	})
	eventually(t, "it is out", func() bool {
		got, outcome := r.reasonOf(bad)
		return strings.HasPrefix(got, "failed_outlier_check: left out while others are healthy, ejected (CONSECUTIVE_5XX) for another ") &&
			strings.Contains(got, ", 1 times so far") && outcome == "c, the only endpoint"
	})
	r.p.slots["c"].spec.Load().outlier.Update(nil)
	eventually(t, "it is back", func() bool {
		got, _ := r.reasonOf(bad)
		return strings.HasPrefix(got, "healthy, ")
	})
}

func TestSlowStartIsExplained(t *testing.T) {
	const joined = "10.0.0.11:80"
	r := newBalanceRig(t, resource.LoadBalancing{
		Policy: resource.RoundRobin, SlowStart: resource.SlowStart{Window: time.Hour, Aggression: 1, MinWeightPercent: 10},
	}, answerOK, "10.0.0.9:80")
	r.pass(time.Hour + time.Second)
	r.snap.Assignments["c"] = assignment("c", "10.0.0.9:80", joined)
	r.apply()
	r.pass(30 * time.Minute)
	e, err := r.p.Explain(Query{Authority: "x"})
	if err != nil || len(e.Endpoints) != 2 || strings.Contains(e.Endpoints[0].Reason, "slow start") ||
		!strings.Contains(e.Endpoints[1].Reason, ", slow start: 49 % of its weight") && !strings.Contains(e.Endpoints[1].Reason, ", slow start: 50 % of its weight") {
		t.Errorf("%+v %v", e.Endpoints, err)
	}
}

func TestTheListenerExplainedByDefaultIsForHTTP(t *testing.T) {
	const none, in, out = resource.Unspecified, resource.Inbound, resource.Outbound
	type listeners map[string]resource.Direction
	for _, tt := range []struct {
		name      string
		http, tcp listeners
		want, why string // without want the error
	}{
		{"a TCP proxy is first by name", listeners{"outbound": out, "inbound": in}, listeners{"db:5432": out}, "outbound", "the application sends here"},
		{"a manager is first by name", listeners{"admin": out, "outbound": out}, nil, "outbound", "the application sends here"},
		{"one manager of another name", listeners{"web": out, "inbound": in}, listeners{"db:5432": out}, "web", "the application sends here"},
		{"managers of other names", listeners{"web": out, "shop": out}, listeners{"db:5432": out}, "shop", "the first by name of the outbound ones for HTTP"},
		{"the outbound one is of TCP", listeners{"web": out}, listeners{"outbound": out}, "web", "the application sends here"},
		{"the name is of another direction", listeners{"outbound": in, "web": out}, nil, "web", "the application sends here"},
		{"none is outbound", listeners{"a": in, "web": none}, listeners{"db:5432": none}, "web", "the first by name, as none is outbound"},
		{
			"all outbound ones are of TCP", listeners{"inbound": in}, listeners{"db:5432": out, "cache:6379": out}, "",
			"no such listener: no outbound one has an HTTP connection manager; name the listener to explain, there are: cache:6379, db:5432, inbound",
		},
		{
			"all are of TCP", nil, listeners{"db:5432": in}, "",
			"no such listener: none has an HTTP connection manager; name the listener to explain, there are: db:5432",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c", "192.0.2.1:80")
				base := s.Listeners["l"]
				delete(s.Listeners, "l")
				add := func(of listeners, chain *resource.FilterChain) {
					for name, direction := range of {
						l := *base
						ap := netip.MustParseAddrPort(freeAddr(t))
						l.Name, l.Direction = name, direction
						l.Addresses = []resource.Address{{Host: ap.Addr().String(), Port: ap.Port()}}
						l.FilterChains = []*resource.FilterChain{chain}
						s.Listeners[name] = &l
					}
				}
				add(tt.http, base.FilterChains[0])
				add(tt.tcp, &resource.FilterChain{Name: "tcp", TCP: tcpTo("c")})
			})
			e, err := r.p.Explain(Query{Authority: "x"})
			switch {
			case tt.want == "":
				if !errors.Is(err, ErrNoListener) || err.Error() != tt.why {
					t.Errorf("explained as %+v, %v; want %s", e.Steps, err, tt.why)
				}
			case err != nil:
				t.Error(err)
			case e.Steps[0].Name != tt.want || !strings.HasSuffix(e.Steps[0].Reason, ": "+tt.why):
				t.Errorf("explained as %+v, want %s: %s", e.Steps[0], tt.want, tt.why)
			}
			for name := range tt.tcp { // whoever asks for it is told
				if e, err := r.p.Explain(Query{Listener: name, Authority: "x"}); err != nil || !strings.HasSuffix(e.Steps[0].Reason, ": asked for") {
					t.Errorf("%s is explained as %+v, %v", name, e.Steps, err)
				}
			}
		})
	}
}
