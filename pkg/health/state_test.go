// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func settings() *resource.HealthCheck {
	return &resource.HealthCheck{
		Timeout: time.Second, Interval: 5 * time.Second, NoTrafficInterval: 60 * time.Second, NoTrafficHealthyInterval: 50 * time.Second,
		UnhealthyInterval: 4 * time.Second, UnhealthyEdgeInterval: 3 * time.Second, HealthyEdgeInterval: 2 * time.Second,
		UnhealthyThreshold: 3, HealthyThreshold: 2, ReuseConnection: true,
	}
}

// Scripts are results; behind each stands what follows: the verdict (ok or FAILED, with
// a * where it has just changed, "degraded" where it is), and the seconds until the next.
func TestHostsChangeByTheirChecksAsEnvoysDo(t *testing.T) {
	results := map[string]Result{
		"pass": {Outcome: Passed}, "degraded": {Outcome: Degraded}, "503": {Outcome: Refused}, "retriable": {Outcome: Refused, Retriable: true},
		"down": {Outcome: Unreachable}, "hung": {Outcome: TimedOut}, "passive": {Outcome: Passive}, "nothing": {Outcome: Unknown},
	}
	for _, tt := range []struct {
		name   string
		failed bool // before
		unused bool // the cluster
		script string
	}{
		{"the first success decides at once", true, false, "pass=ok*/5 pass=ok/5"},
		{"the first failure decides at once", false, false, "down=FAILED*/4 down=FAILED/4"},
		{"a host that begins failed and fails stays failed", true, false, "hung=FAILED/4 pass=FAILED/2 pass=ok*/5"},
		{"failures of the network need the threshold", true, false, "pass=ok*/5 down=ok/3 hung=ok/3 down=FAILED*/4 down=FAILED/4"},
		{"a success forgives the failures before it", true, false, "pass=ok*/5 down=ok/3 down=ok/3 pass=ok/5 down=ok/3 down=ok/3 down=FAILED*/4"},
		{"an answer that is not expected needs no second one", true, false, "pass=ok*/5 503=FAILED*/4"},
		{"an answer that is retriable counts towards the threshold", true, false, "pass=ok*/5 retriable=ok/3 down=ok/3 retriable=FAILED*/4"},
		{"successes need their threshold, in a row", true, false, "503=FAILED/4 pass=FAILED/2 503=FAILED/4 pass=FAILED/2 pass=ok*/5"},
		{"a response to traffic makes unhealthy at once", true, false, "pass=ok*/5 passive=FAILED*/4 pass=FAILED/2 pass=ok*/5"},
		{"degraded is kept beside health", true, false, "degraded=ok*degraded/5 down=okdegraded/3 pass=ok/5"},
		{"degraded changes while success is pending", true, false, "503=FAILED/4 degraded=FAILEDdegraded/2 degraded=ok*degraded/5"},
		{"without traffic intervals are long", true, true, "pass=ok*/50 pass=ok/50 down=ok/60 down=ok/60 down=FAILED*/60 pass=FAILED/60 pass=ok*/50"},
		{"what says nothing of the host changes nothing", true, false, "nothing=FAILED/4 pass=ok*/5 down=ok/3 nothing=ok/4 down=ok/3 down=FAILED*/4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, s := settings(), State{Failed: tt.failed}
			var got []string
			for word := range strings.FieldsSeq(tt.script) {
				name, _, _ := strings.Cut(word, "=")
				r := results[name]
				c := s.Apply(h, &r)
				verdict := "ok"
				if s.Failed {
					verdict = "FAILED"
				}
				if c.Health {
					verdict += "*"
				}
				if s.Degraded {
					verdict += "degraded"
				}
				wait := Wait(h, r.Outcome, c, !tt.unused, func() uint64 { return 0 })
				got = append(got, fmt.Sprintf("%s=%s/%d", name, verdict, int(wait.Seconds())))
			}
			if g := strings.Join(got, " "); g != tt.script {
				t.Errorf("got  %s\nwant %s", g, tt.script)
			}
		})
	}
}

func TestJitterIsAddedToIntervals(t *testing.T) {
	h := settings()
	h.IntervalJitterPercent, h.IntervalJitter = 10, 100*time.Millisecond
	most := func() uint64 { return 100*uint64(time.Millisecond)*500 - 1 } // one less than a multiple of both
	if got, want := Wait(h, Passed, Change{}, true, most), 5600*time.Millisecond-2; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Wait(h, Passed, Change{}, true, func() uint64 { return 0 }); got != 5*time.Second {
		t.Errorf("got %v", got)
	}
	h.Interval, h.IntervalJitter, h.IntervalJitterPercent = 1, 0, 0
	if got := Wait(h, Passed, Change{}, true, most); got != time.Millisecond {
		t.Errorf("the shortest wait is %v, want 1ms", got)
	}
}
