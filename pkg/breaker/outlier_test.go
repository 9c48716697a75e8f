// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

type fakeHost struct {
	name    string
	word    atomic.Uint64
	ejected atomic.Bool
}

func (h *fakeHost) Consecutive() *atomic.Uint64 { return &h.word }
func (h *fakeHost) SetEjected(on bool)          { h.ejected.Store(on) }
func (h *fakeHost) Ejected() bool               { return h.ejected.Load() }
func (h *fakeHost) String() string              { return h.name }

// envoyDefaults are those of envoy.config.cluster.v3.OutlierDetection, but that no
// rates are measured.
var envoyDefaults = resource.OutlierDetection{
	Consecutive5xx: 5, Enforcing5xx: 100, ConsecutiveGateway: 5, EnforcingGateway: 0,
	ConsecutiveLocal: 5, EnforcingLocal: 100, Interval: 10 * time.Second, BaseEjection: 30 * time.Second,
	MaxEjection: 300 * time.Second, MaxEjectionPercent: 10,
	SuccessRate: resource.SuccessRate{MinHosts: 5, Volume: 100, Stdev: 1.9},
	Failure:     resource.FailurePercentage{Threshold: 85, MinHosts: 5, Volume: 50},
}

type outlierScript struct {
	outlier *Outlier
	hosts   []*fakeHost
	tallies [2]map[Host]*Tally // of two workers
	worker  int
	now     int64
	changes int
	lines   []string
	cfg     resource.OutlierDetection
}

func TestOutlierScripts(t *testing.T) {
	runScripts(t, "outlier", func() func([]string) (string, error) {
		s := &outlierScript{cfg: envoyDefaults, tallies: [2]map[Host]*Tally{{}, {}}}
		s.advance(time.Hour)
		log := NewEventLog(4, nil, func() time.Time { return time.Unix(0, s.now) })
		log.Tell(func(e Event) {
			if e.Action == Eject || e.Action == Uneject {
				s.lines = append(s.lines, string(must(json.Marshal(e))))
			}
		})
		s.outlier = NewOutlier("c", nil, Members{
			Each: func(f func(Host)) {
				for _, h := range s.hosts {
					f(h)
				}
			},
			Changed: func() { s.changes++ },
		}, log, 1)
		return s.do
	})
}

func (s *outlierScript) advance(d time.Duration) { s.now += int64(d) }

func (s *outlierScript) do(w []string) (string, error) {
	switch w[0] {
	case "hosts": // hosts 3: make it that many
		for n := must(strconv.Atoi(w[1])); len(s.hosts) != n; {
			if len(s.hosts) > n {
				s.hosts = s.hosts[:len(s.hosts)-1]
			} else {
				s.hosts = append(s.hosts, &fakeHost{name: fmt.Sprint("host", len(s.hosts))})
			}
		}
	case "detect": // detect key=value…: change settings; "off" for none
		if len(w) > 1 && w[1] == "off" {
			s.outlier.Update(nil)
			return s.ejected(), nil
		}
		s.configure(parseOptions(w[1:]))
	case "respond": // respond 0 503 [5]: host 0 answers 503, five times
		s.times(w, 3, func(h Host) { s.outlier.Result(h, s.tally(h), must(strconv.Atoi(w[2]))) })
	case "local": // local 0 timeout|connect|reset [5]: a failure before any response
		r := map[string]Result{"timeout": TimedOut, "connect": NotConnect, "reset": Reset}[w[2]]
		s.times(w, 3, func(h Host) { s.outlier.Local(h, s.tally(h), r) })
	case "tick":
		s.advance(must(time.ParseDuration(w[1])))
		changes := s.changes
		s.outlier.Tick(s.now)
		out := s.took()
		if s.changes != changes {
			out += " (view rebuilt)"
		}
		return out, nil
	case "worker": // worker 1: what follows is seen by that one
		s.worker = must(strconv.Atoi(w[1]))
	case "retryafter": // retryafter 0 90s: host 0 wants to be left alone for so long
		s.tallyOf(s.hosts[must(strconv.Atoi(w[1]))]).RetryAt(s.now + int64(must(time.ParseDuration(w[2]))))
	case "checked": // checked 0: an active health check of host 0 succeeds
		s.outlier.HealthCheckSucceeded(s.hosts[must(strconv.Atoi(w[1]))], s.now)
		return s.took(), nil
	case "rates":
		out := ""
		for _, h := range s.hosts {
			external, local := s.outlier.SuccessRates(h)
			out += fmt.Sprintf("%s %.4g %.4g\n", h.name, external, local)
		}
		external, local := s.outlier.ClusterRates()
		return out + fmt.Sprintf("mean and threshold %.4g %.4g, local origin %.4g %.4g", external.Average, external.Threshold, local.Average, local.Threshold), nil
	case "stats":
		return fmt.Sprintf("%+v", s.outlier.Stats()), nil
	default:
		return "", fmt.Errorf("no command %s", w[0])
	}
	return "", nil
}

// took is what was logged since, and who is out.
func (s *outlierScript) took() string {
	out := strings.Join(append(s.lines, s.ejected()), "\n")
	s.lines = nil
	return out
}

func (s *outlierScript) tally(h Host) *Tally {
	if !s.outlier.Measures() {
		return nil
	}
	return s.tallyOf(h)
}

func (s *outlierScript) tallyOf(h Host) *Tally {
	m := s.tallies[s.worker]
	if m[h] == nil {
		m[h] = s.outlier.Tally(h)
	}
	return m[h]
}

func (s *outlierScript) times(w []string, at int, f func(Host)) {
	n := 1
	if len(w) > at {
		n = must(strconv.Atoi(w[at]))
	}
	for range n {
		f(s.hosts[must(strconv.Atoi(w[1]))])
	}
}

func (s *outlierScript) configure(o options) {
	o.uint32("5xx", &s.cfg.Consecutive5xx)
	o.uint32("enforce5xx", &s.cfg.Enforcing5xx)
	o.uint32("gateway", &s.cfg.ConsecutiveGateway)
	o.uint32("enforcegateway", &s.cfg.EnforcingGateway)
	o.uint32("local", &s.cfg.ConsecutiveLocal)
	o.uint32("maxpercent", &s.cfg.MaxEjectionPercent)
	o.duration("base", &s.cfg.BaseEjection)
	o.duration("max", &s.cfg.MaxEjection)
	o.duration("jitter", &s.cfg.Jitter)
	o.flag("split", &s.cfg.SplitLocal)
	o.flag("ejectone", &s.cfg.AlwaysEjectOne)
	o.duration("interval", &s.cfg.Interval)
	o.uint32("rate", &s.cfg.SuccessRate.Enforcing)
	o.uint32("ratelocal", &s.cfg.SuccessRate.EnforcingLocal)
	o.uint32("ratehosts", &s.cfg.SuccessRate.MinHosts)
	o.uint32("ratevolume", &s.cfg.SuccessRate.Volume)
	o.uint32("share", &s.cfg.Failure.Enforcing)
	o.uint32("sharelocal", &s.cfg.Failure.EnforcingLocal)
	o.uint32("sharehosts", &s.cfg.Failure.MinHosts)
	o.uint32("sharevolume", &s.cfg.Failure.Volume)
	o.uint32("threshold", &s.cfg.Failure.Threshold)
	o.flag("checks", &s.cfg.UnejectChecked)
	o.flag("retryafter", &s.cfg.RetryAfter)
	if v, ok := o["errors"]; ok { // errors=429-429
		first, last, _ := strings.Cut(v, "-")
		s.cfg.Errors = []resource.StatusRange{{First: must(strconv.Atoi(first)), Last: must(strconv.Atoi(last))}}
	}
	cfg := s.cfg
	s.outlier.Update(&cfg)
}

func (s *outlierScript) ejected() string {
	var names []string
	for _, h := range s.hosts {
		if h.Ejected() {
			names = append(names, h.name)
		}
	}
	return fmt.Sprint("ejected: ", names)
}

func TestEventsHaveEnvoysFieldsAndOurReasons(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	got, err := json.Marshal(Event{
		Time: at, Cluster: "orders", Upstream: "10.0.0.1:80", Action: "EJECT", Type: ConsecutiveGateway,
		Ejections: 2, Enforced: true, SinceLast: 90 * time.Second, For: time.Minute, Threshold: 5, Active: 1, Hosts: 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"CONSECUTIVE_GATEWAY_FAILURE","cluster_name":"orders","upstream_url":"10.0.0.1:80",` +
		`"action":"EJECT","num_ejections":2,"enforced":true,"eject_consecutive_event":{},` +
		`"timestamp":"2026-01-02T03:04:05.006Z","secs_since_last_action":"90","consecutive_failures":5,` +
		`"ejected_hosts":1,"cluster_hosts":10,"ejected_for_ms":60000,"ejected_until":"2026-01-02T03:05:05.006Z"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A line of the log is nothing but Envoy's message.
func TestTheEventLogWritesEnvoysFieldsAlone(t *testing.T) {
	var lines []string
	l := NewEventLog(3, func(line []byte) { lines = append(lines, string(line)) }, func() time.Time { return time.UnixMilli(1_500) })
	for _, e := range []Event{
		{Cluster: "c", Upstream: "10.0.0.1:80", Action: Eject, Type: Consecutive5xx, Ejections: 1, Enforced: true, SinceLast: -1, For: time.Minute, Threshold: 5, Active: 1, Hosts: 2},
		{Cluster: "c", Upstream: "10.0.0.1:80", Action: Uneject, Ejections: 1, SinceLast: 61 * time.Second},
		{Cluster: "c", Upstream: "10.0.0.1:80", Action: Eject, Type: SuccessRate, Ejections: 2, SinceLast: 0, Percent: 50.7, Rates: ClusterRates{Average: 90.2, Threshold: 70.9}},
	} {
		l.add(e)
	}
	const common = `"cluster_name":"c","upstream_url":"10.0.0.1:80",`
	want := []string{
		`{"type":"CONSECUTIVE_5XX",` + common + `"action":"EJECT","num_ejections":1,"enforced":true,"eject_consecutive_event":{},"timestamp":"1970-01-01T00:00:01.500Z"}`,
		`{"type":"CONSECUTIVE_5XX",` + common + `"action":"UNEJECT","num_ejections":1,"enforced":false,"timestamp":"1970-01-01T00:00:01.500Z","secs_since_last_action":"61"}`,
		`{"type":"SUCCESS_RATE",` + common + `"action":"EJECT","num_ejections":2,"enforced":false,"eject_success_rate_event":{"host_success_rate":50,"cluster_average_success_rate":90,"cluster_success_rate_ejection_threshold":70},"timestamp":"1970-01-01T00:00:01.500Z","secs_since_last_action":"0"}`,
	}
	for i := range want {
		if i >= len(lines) || lines[i] != want[i]+"\n" {
			t.Errorf("line %d of %q, want %s", i, lines, want[i])
		}
	}
}

func TestTheEventLogKeepsTheLastEvents(t *testing.T) {
	l := NewEventLog(3, nil, func() time.Time { return time.Time{} })
	for i := range 5 {
		l.add(Event{Hosts: i})
	}
	got := ""
	for _, e := range l.Events() {
		got += fmt.Sprint(e.Hosts, " ")
	}
	if got != "2 3 4 " {
		t.Errorf("kept %s, want 2 3 4", got)
	}
}

// Failures in a row are counted over all workers: n workers that each see k
// failures reach a threshold of n·k, and with one success in between they do not.
func TestFailuresInARowAreExactOverWorkers(t *testing.T) {
	const workers, each = 4, 2000
	for _, missing := range []uint32{0, 1} {
		h := &fakeHost{name: "h"}
		cfg := envoyDefaults
		cfg.Consecutive5xx, cfg.MaxEjectionPercent = workers*each+missing, 100
		o := NewOutlier("c", &cfg, Members{Each: func(f func(Host)) { f(h) }, Changed: func() {}}, nil, 1)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range each {
					o.Result(h, nil, 500)
				}
			})
		}
		wg.Wait()
		o.Tick(1)
		if h.Ejected() != (missing == 0) {
			t.Errorf("%d failures against a threshold of %d: ejected %v", workers*each, cfg.Consecutive5xx, h.Ejected())
		}
	}
}

// No schedule of results and ticks lets more hosts be ejected than allowed, and
// the number of active ejections always is the number of ejected hosts.
func TestEjectionsStayWithinTheirPercentage(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		hosts := make([]*fakeHost, 1+rng.IntN(20))
		for i := range hosts {
			hosts[i] = &fakeHost{name: fmt.Sprint(i)}
		}
		cfg := envoyDefaults
		cfg.MaxEjectionPercent, cfg.AlwaysEjectOne = uint32(rng.IntN(101)), rng.IntN(2) == 0
		cfg.Enforcing5xx, cfg.Jitter = 80, time.Second
		o := NewOutlier("c", &cfg, Members{Each: func(f func(Host)) {
			for _, h := range hosts {
				f(h)
			}
		}, Changed: func() {}}, nil, seed)
		now := int64(1)
		for range 2000 {
			o.Result(hosts[rng.IntN(len(hosts))], nil, 200+300*rng.IntN(2))
			if rng.IntN(5) > 0 {
				continue
			}
			now += rng.Int64N(int64(5 * time.Second))
			o.Tick(now)
			ejected := 0
			for _, h := range hosts {
				if h.Ejected() {
					ejected++
				}
			}
			limit := len(hosts) * int(cfg.MaxEjectionPercent) / 100
			if cfg.AlwaysEjectOne {
				limit = max(limit, 1)
			}
			if ejected > limit || int(o.Stats().Active) != ejected {
				t.Fatalf("seed %d: %d of %d hosts ejected, %d counted, limit %d", seed, ejected, len(hosts), o.Stats().Active, limit)
			}
		}
	}
}
