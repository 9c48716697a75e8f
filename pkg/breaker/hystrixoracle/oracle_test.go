// SPDX-License-Identifier: Apache-2.0

package hystrixoracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afex/hystrix-go/hystrix"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/breaker/hystrixconfig"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// script is one circuit's life. Each step waits, asks whether a request may pass
// and then reports an outcome: the request's own, or a straggler's.
type script struct {
	Name   string
	Config hystrix.CommandConfig
	Steps  []step
}

type step struct {
	Wait      time.Duration
	Outcome   string // if allowed; "" when it is never reported
	Straggler string // reported whether or not it was allowed
}

// decision is what a circuit said at a step.
type decision struct {
	Now     int64
	Allowed bool
	Open    bool
}

const childVariable = "HYSTRIX_ORACLE_CHILD"

// TestOracleChild is the process of its own: scripts come in, decisions go out.
func TestOracleChild(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		t.Skip("runs as a child of the other tests")
	}
	var scripts []script
	if err := json.NewDecoder(os.Stdin).Decode(&scripts); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		out := make([][]decision, len(scripts))
		for i, s := range scripts {
			out[i] = replayTheirs(t, s)
		}
		if err := json.NewEncoder(os.Stderr).Encode(out); err != nil {
			t.Fatal(err)
		}
		os.Exit(0) // the bubble could never end: hystrix-go's goroutines do not
	})
}

func replayTheirs(t *testing.T, s script) []decision {
	hystrix.ConfigureCommand(s.Name, s.Config)
	c, _, err := hystrix.GetCircuit(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	report := func(outcome string) {
		if outcome == "" {
			return
		}
		if err := c.ReportEvent([]string{outcome}, time.Now(), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // its goroutines have counted it
	}
	var out []decision
	for _, st := range s.Steps {
		<-time.After(st.Wait)
		d := decision{Now: time.Now().UnixNano(), Allowed: c.AllowRequest()}
		d.Open = c.IsOpen()
		if d.Allowed {
			report(st.Outcome)
		} else {
			report("short-circuit")
		}
		report(st.Straggler)
		c.IsOpen() // decides by what was reported, as our tick does
		out = append(out, d)
	}
	return out
}

// theirs runs hystrix-go in the child.
func theirs(t *testing.T, scripts []script) [][]decision {
	t.Helper()
	in, err := json.Marshal(scripts)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestOracleChild$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("child: %v\n%s%s", err, &stdout, &stderr)
	}
	var out [][]decision
	if err := json.Unmarshal(stderr.Bytes(), &out); err != nil {
		t.Fatalf("child printed %q: %v", &stderr, err)
	}
	return out
}

var outcomes = map[string]breaker.Outcome{
	"success": breaker.Success, "failure": breaker.Failure, "timeout": breaker.Timeout, "rejected": breaker.Rejected,
}

// ours replays a script at the times at which theirs was asked.
func ours(s script, at []decision, change ...func(*resource.CircuitBreaker)) []decision {
	cfg := hystrixconfig.Breaker(s.Config)
	for _, f := range change {
		f(&cfg)
	}
	c := breaker.NewCircuit(s.Name, &cfg)
	var n breaker.Counts
	var out []decision
	for i, st := range s.Steps {
		now := at[i].Now
		c.Tick(now)
		token, ok := c.Allow(now)
		out = append(out, decision{now, ok, c.State(now) != breaker.Closed})
		if ok && st.Outcome != "" {
			n.Add(outcomes[st.Outcome])
			c.Report(token, outcomes[st.Outcome], now)
		} else if !ok {
			n.Add(breaker.ShortCircuited)
		}
		if st.Straggler != "" { // it was allowed before the circuit opened
			n.Add(outcomes[st.Straggler])
			c.Report(breaker.Token{}, outcomes[st.Straggler], now)
		}
		c.Flush(&n)
		c.Tick(now)
	}
	return out
}

// firstDifference is the first step at which two circuits decided otherwise, or -1.
func firstDifference(a, b []decision) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// randomScript keeps clear of what is meant to differ: no stragglers, no zeros,
// and activity in bursts that lie either wholly in the window or wholly out of it.
func randomScript(seed uint64) script {
	rng := rand.New(rand.NewPCG(seed, 0))
	s := script{Name: fmt.Sprint("random-", seed), Config: hystrix.CommandConfig{
		RequestVolumeThreshold: 1 + rng.IntN(20), ErrorPercentThreshold: 1 + rng.IntN(100), SleepWindow: 1 + rng.IntN(3000),
	}}
	for range 1 + rng.IntN(4) {
		bad := rng.Float64()
		gap := 12 * time.Second
		for left := 8 * time.Second; left > 0; {
			st := step{Wait: gap + time.Duration(rng.Int64N(int64(200*time.Millisecond))), Outcome: "success"}
			if rng.IntN(30) == 0 {
				st.Wait += time.Duration(rng.Int64N(int64(2 * time.Second)))
			}
			if rng.Float64() < bad {
				st.Outcome = []string{"failure", "timeout", "rejected", "failure", ""}[rng.IntN(5)]
			}
			if left -= st.Wait - gap; left < 0 {
				break
			}
			gap = 0
			s.Steps = append(s.Steps, st)
		}
	}
	return s
}

func TestDecisionsAreThoseOfHystrix(t *testing.T) {
	var scripts []script
	seeds := uint64(200)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		scripts = append(scripts, randomScript(seed))
	}
	steps, refused, probes := 0, 0, 0
	for i, want := range theirs(t, scripts) {
		got := ours(scripts[i], want)
		if d := firstDifference(got, want); d >= 0 {
			t.Errorf("%s %+v: step %d %+v: ours %+v, hystrix-go %+v",
				scripts[i].Name, scripts[i].Config, d, scripts[i].Steps[d], got[d], want[d])
		}
		for _, d := range want {
			steps++
			if !d.Allowed {
				refused++
			} else if d.Open {
				probes++
			}
		}
	}
	t.Logf("%d decisions, %d refused, %d probes", steps, refused, probes)
	if refused < steps/20 || probes < 100 {
		t.Errorf("of %d decisions only %d refused and %d probed: the scripts show nothing", steps, refused, probes)
	}
}

// repeat makes n steps of one kind.
func repeat(n int, s step) []step {
	steps := make([]step, n)
	for i := range steps {
		steps[i] = s
	}
	return steps
}

func TestMeantDeviationsAreTheListedOnes(t *testing.T) {
	fail := repeat(20, step{Outcome: "failure"})
	for _, tt := range []struct {
		name         string
		config       hystrix.CommandConfig
		steps        []step
		at           int // the step at which they differ
		theirs, ours decision
		change       func(*resource.CircuitBreaker)
	}{
		{
			name:   "a straggler's success closes hystrix-go's circuit only",
			steps:  append(append(append([]step{}, fail...), step{Straggler: "success"}), step{Outcome: "success"}),
			at:     21,
			theirs: decision{Allowed: true, Open: false},
			ours:   decision{Allowed: false, Open: true},
		},
		{
			// The failures are ten seconds old; a success now drops them from
			// hystrix-go's requests, but its errors were not incremented since.
			name:   "hystrix-go's window is longer than ten seconds for counters at rest",
			config: hystrix.CommandConfig{RequestVolumeThreshold: 3},
			steps: append(repeat(2, step{Outcome: "failure"}),
				step{Wait: 10 * time.Second, Outcome: "success"}, step{Outcome: "success"}, step{Outcome: "success"}, step{}),
			at:     5,
			theirs: decision{Allowed: false, Open: true},
			ours:   decision{Allowed: true, Open: false},
		},
		{
			name:   "an error threshold of zero is zero here and fifty there",
			config: hystrix.CommandConfig{RequestVolumeThreshold: 1},
			steps:  repeat(2, step{Outcome: "success"}),
			at:     1,
			theirs: decision{Allowed: true, Open: false},
			ours:   decision{Allowed: false, Open: true},
			change: func(c *resource.CircuitBreaker) { c.ErrorThresholdPercent = 0 },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := script{Name: tt.name, Config: tt.config, Steps: tt.steps}
			want := theirs(t, []script{s})[0]
			if tt.change == nil {
				tt.change = func(*resource.CircuitBreaker) {}
			}
			got := ours(s, want, tt.change)
			if d := firstDifference(got, want); d != tt.at {
				t.Fatalf("they differ first at step %d, want %d:\nours   %+v\ntheirs %+v", d, tt.at, got, want)
			}
			tt.theirs.Now, tt.ours.Now = want[tt.at].Now, want[tt.at].Now
			if want[tt.at] != tt.theirs || got[tt.at] != tt.ours {
				t.Errorf("ours %+v, hystrix-go %+v; meant %+v and %+v", got[tt.at], want[tt.at], tt.ours, tt.theirs)
			}
		})
	}
}
