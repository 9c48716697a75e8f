// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

var update = flag.Bool("update", false, "write what scripts print into testdata")

// runScripts runs each file of a folder: blocks of command lines, "----", and what
// the block printed, separated by blank lines; "#" begins a comment.
func runScripts(t *testing.T, folder string, start func() func(words []string) (string, error)) {
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", folder, err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := playScript(string(text), start())
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s prints otherwise now:\n%s", name, got)
			}
		})
	}
}

func playScript(text string, do func([]string) (string, error)) string {
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		commands, _, hasOutput := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n")
		printed, ran := "", false
		for line := range strings.Lines(commands) {
			line, _, _ = strings.Cut(line, "#")
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			ran = true
			s, err := do(words)
			if err != nil {
				s = "error: " + err.Error()
			}
			if s != "" {
				printed += s + "\n"
			}
		}
		if ran || hasOutput {
			out.WriteString("----\n" + printed)
		}
	}
	return out.String()
}

// options are "key=value" words.
type options map[string]string

func parseOptions(words []string) options {
	o := options{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		o[k] = v
	}
	return o
}

func (o options) int(key string, to *int) {
	if v, ok := o[key]; ok {
		*to = must(strconv.Atoi(v))
	}
}

func (o options) uint32(key string, to *uint32) {
	if v, ok := o[key]; ok {
		*to = uint32(must(strconv.Atoi(v)))
	}
}

func (o options) duration(key string, to *time.Duration) {
	if v, ok := o[key]; ok {
		*to = must(time.ParseDuration(v))
	}
}

func (o options) flag(key string, to *bool) {
	if v, ok := o[key]; ok {
		*to = v != "off"
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // a script that cannot be read fails its test
	}
	return v
}

// circuitScript drives one circuit. Its commands are in (*circuitScript).do.
type circuitScript struct {
	circuit *Circuit
	now     int64
	counts  [2]Counts // of two workers
	tokens  map[string]Token
	cfg     resource.CircuitBreaker
}

func TestCircuitScripts(t *testing.T) {
	runScripts(t, "circuit", func() func([]string) (string, error) {
		s := &circuitScript{now: int64(time.Hour), tokens: map[string]Token{}, cfg: hystrixDefaults}
		return s.do
	})
}

var hystrixDefaults = resource.CircuitBreaker{
	Enabled: true, ErrorThresholdPercent: 50, RequestVolumeThreshold: 20,
	Window: 10 * time.Second, Buckets: 10, SleepWindow: 5 * time.Second,
}

func (s *circuitScript) do(w []string) (string, error) {
	switch w[0] {
	case "circuit": // enabled volume percent sleep window buckets forceopen forceclosed: make or change it
		return s.configure(parseOptions(w[1:]))
	case "count": // count 5 failure|slow-success… [worker]: outcomes that a worker has seen
		worker := 0
		if len(w) > 3 {
			worker = must(strconv.Atoi(w[3]))
		}
		name, slow := strings.CutPrefix(w[2], "slow-")
		for range must(strconv.Atoi(w[1])) {
			s.circuit.Count(&s.counts[worker], outcomeNamed(name), slow)
		}
	case "askafter": // askafter 30s: an endpoint wants to be left alone
		s.circuit.RetryAt(s.now+int64(must(time.ParseDuration(w[1]))), s.now)
	case "retryin":
		return s.circuit.RetryIn(s.now).String(), nil
	case "ramp": // ramp 100: how many of so many requests pass
		passed := 0
		for range must(strconv.Atoi(w[1])) {
			if t, ok := s.circuit.Allow(s.now); ok && !t.Probe() {
				passed++
			}
		}
		return fmt.Sprint(passed, " pass"), nil
	case "flush": // all workers
		for i := range s.counts {
			s.circuit.Flush(&s.counts[i])
		}
	case "pass": // pass 1s: time passes and nothing else happens
		s.now += int64(must(time.ParseDuration(w[1])))
	case "tick": // tick 100ms: time passes, workers flush, the circuit decides
		s.now += int64(must(time.ParseDuration(w[1])))
		for i := range s.counts {
			s.circuit.Flush(&s.counts[i])
		}
		if s.circuit.Tick(s.now) {
			return "now " + s.state(), nil
		}
	case "state":
		return s.state(), nil
	case "allow": // allow name: a request wants to pass
		t, ok := s.circuit.Allow(s.now)
		if !ok {
			s.counts[0].Add(ShortCircuited)
			return w[1] + ": refused", nil
		}
		s.tokens[w[1]] = t
		if t.Probe() {
			return w[1] + ": allowed as the probe", nil
		}
		return w[1] + ": allowed", nil
	case "end": // end name outcome: that request ends
		name, slow := strings.CutPrefix(w[2], "slow-")
		o := outcomeNamed(name)
		s.circuit.Count(&s.counts[0], o, slow)
		s.circuit.ReportCall(s.tokens[w[1]], o, slow, s.now)
	case "window":
		m := s.circuit.Metrics(s.now)
		out := fmt.Sprintf("%d requests, %d errors, %d %%:", m.Requests, m.Errors, m.ErrorPercent)
		if m.Slow > 0 {
			out += fmt.Sprintf(" %d slow, %d %%:", m.Slow, m.SlowPercent)
		}
		for o, n := range m.Rolling {
			if n > 0 {
				out += fmt.Sprintf(" %s %d", Outcome(o), n)
			}
		}
		return out, nil
	default:
		return "", fmt.Errorf("no command %s", w[0])
	}
	return "", nil
}

func (s *circuitScript) configure(o options) (string, error) {
	s.cfg.Enabled = true
	o.flag("enabled", &s.cfg.Enabled)
	o.int("volume", &s.cfg.RequestVolumeThreshold)
	o.int("percent", &s.cfg.ErrorThresholdPercent)
	o.int("buckets", &s.cfg.Buckets)
	o.duration("sleep", &s.cfg.SleepWindow)
	o.duration("window", &s.cfg.Window)
	o.duration("slow", &s.cfg.SlowDuration)
	o.int("slowpercent", &s.cfg.SlowPercent)
	o.int("calls", &s.cfg.WindowCalls)
	o.int("halfopen", &s.cfg.HalfOpenCalls)
	o.duration("recovery", &s.cfg.Recovery)
	o.flag("retryafter", &s.cfg.RetryAfter)
	o.flag("forceopen", &s.cfg.ForceOpen)
	o.flag("forceclosed", &s.cfg.ForceClosed)
	cfg := s.cfg
	if s.circuit == nil {
		s.circuit = NewCircuit("script", &cfg)
		s.circuit.Tick(s.now)
	} else {
		s.circuit.Update(&cfg)
	}
	return s.state(), nil
}

func (s *circuitScript) state() string { return s.circuit.State(s.now).String() }

func outcomeNamed(name string) Outcome {
	for o, n := range outcomeNames {
		if n == name {
			return Outcome(o)
		}
	}
	panic("no outcome " + name)
}
