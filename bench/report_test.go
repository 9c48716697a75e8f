// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// exampleResult has two bodies, a bar missed, and one proxy that lacks a cell.
func exampleResult() *Result {
	r := &Result{
		Started: time.Date(2030, 1, 2, 3, 4, 0, 0, time.UTC), Took: 90 * time.Second,
		Machine:  Machine{CPU: "A CPU", CPUs: 2, Kernel: "6.0", MemoryMiB: 1024, Go: "go1.26"},
		Versions: map[string]string{"nginx": "1.2.3", "haproxy": "2.3.4", "envoy": "3.4.5", "wrk": "4.5.6", "h2load": "5.6.7"},
		Commit:   "abcdef0", SidecarBuild: "guided by the profile sidecar.pgo",
		Options: Options{Rounds: 3, Duration: 2 * time.Second, Connections: []int{4, 64}, Bodies: []string{"small", "16k"}, Protocols: []string{"h2c-16x32", "handshake-full"}},
		Faults:  []string{"nginx, small body, 4 connections, round 1: 2 of 1000 requests failed"},
	}
	base := map[string]float64{"nginx": 10, "haproxy": 11, "envoy": 40, "envoy-on": 50, "sidecar": 8, "sidecar-on": 9, "sidecar-all": 9.5}
	for _, b := range r.Options.Bodies {
		for _, n := range r.Options.Connections {
			for _, p := range proxies {
				if p.Name == "haproxy" && b == "16k" {
					continue
				}
				c := Cell{Proxy: p.Name, Features: p.Features, Body: b, Connections: n}
				for round := range 3 {
					cpu := base[p.Name] + float64(round)*float64(len(p.Name))/10
					if b == "16k" {
						cpu *= 1 + 1/float64(len(p.Name))
					}
					c.Samples = append(c.Samples, Sample{
						Round: round, Requests: 1000, CPUMicros: cpu, UserMicros: cpu / 4, PerSecond: 500,
						P50Micros: 1500, P99Micros: 2500, Memory: memory{RSS: 20e6, PSS: 15e6},
						CoreShare: 0.5, OthersShare: 0.25, StealShare: 0.01,
					})
				}
				r.Load = append(r.Load, c)
			}
		}
	}
	r.Load[0].Samples[0].Failed = 2
	for _, p := range []string{"nginx", "sidecar-on"} {
		r.Idle = append(r.Idle, IdleRow{Proxy: p, Connections: 10_000, Rounds: []IdleRound{
			{AtRest: memory{RSS: 20e6, PSS: 19e6}, Served: memory{RSS: 24e6}, Connected: memory{RSS: 41e6}, BytesPerConnection: 1900},
			{Round: 1, AtRest: memory{RSS: 22e6, PSS: 20e6}, Served: memory{RSS: 26e6}, Connected: memory{RSS: 45e6}, BytesPerConnection: 2100},
		}})
	}
	for _, name := range []string{"h2c-16x32", "handshake-full"} {
		for proxy, cpu := range map[string]float64{"nginx": 10, "haproxy": 11, "envoy-on": 50, "sidecar-on": 9} {
			if proxy == "nginx" && name == "handshake-full" {
				continue
			}
			row := ProtocolRow{Proxy: proxy, Features: strings.HasSuffix(proxy, "-on"), Scenario: name}
			for round := range 3 {
				row.Samples = append(row.Samples, Sample{Round: round, Requests: 1000, CPUMicros: cpu + float64(round), UserMicros: cpu / 4, PerSecond: 500, P50Micros: cpu - 10})
			}
			r.Protocols = append(r.Protocols, row)
		}
	}
	r.IdleTLS = []IdleRow{{Proxy: "haproxy", Connections: 500, Rounds: []IdleRound{{BytesPerConnection: 30e3}}}, {Proxy: "sidecar-on", Connections: 500, Rounds: []IdleRound{{BytesPerConnection: 10e3}}}}
	r.Clusters = []ClusterRow{{Proxy: "sidecar-on", Clusters: 1000, Rounds: []ClusterRound{{
		Full: Start{ReadySeconds: 0.5, CPUSeconds: 0.4, Memory: memory{RSS: 30e6}},
		Bare: Start{ReadySeconds: 0.02, Memory: memory{RSS: 22e6}}, BytesPerCluster: 8000,
	}}}}
	r.Verdicts = judge(r)
	return r
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", file, d)
	}
}

func TestReportShowsFiguresLossesAndFaults(t *testing.T) {
	golden(t, "report.md", exampleResult().markdown("plot.svg"))
}

func TestPlotIsWellFormedAndAsItWas(t *testing.T) {
	svg := exampleResult().plot()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "plot.svg", svg)
}

func TestOnlyAWholeAndValidRunBecomesTheLatest(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Result)
		want   int
	}{
		"whole":      {func(*Result) {}, 3},
		"quick":      {func(r *Result) { r.Options.Quick = true }, 0},
		"invalid":    {func(r *Result) { r.Faults = []string{"a request failed"} }, 0},
		"one part":   {func(r *Result) { r.Options.Idle = false }, 0},
		"some":       {func(r *Result) { r.Options.Only = []string{"nginx"} }, 0},
		"one body":   {func(r *Result) { r.Options.Bodies = []string{"small"} }, 0},
		"few loads":  {func(r *Result) { r.Options.Protocols = []string{"h2c-16x32"} }, 0},
		"fewer rows": {func(r *Result) { r.Options.Connections = []int{64} }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := exampleResult()
			r.Faults = nil
			o := &r.Options
			o.Load, o.Protocol, o.Idle, o.Clusters, o.Connections = true, true, true, true, []int{4, 64, 512}
			o.Protocols = scenarioNames()
			c.change(r)
			dir := t.TempDir()
			report, err := r.write(dir)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(report); err != nil || !strings.HasPrefix(string(text), "# Benchmark of ") {
				t.Errorf("the report is %.20q, %v", text, err)
			}
			if names, err := filepath.Glob(filepath.Join(dir, "latest.*")); err != nil || len(names) != c.want {
				t.Errorf("the latest files are %v, %v, want %d", names, err, c.want)
			}
		})
	}
}

func TestBarsAreJudgedByMedianAndForFewConnectionsBySpread(t *testing.T) {
	for name, c := range map[string]struct {
		connections          int
		ours, nginx, envoy   [3]float64
		wantNginx, wantEnvoy bool
	}{
		"ahead":                     {64, [3]float64{9, 9, 9}, [3]float64{10, 10, 10}, [3]float64{40, 40, 40}, true, true},
		"behind once":               {64, [3]float64{9, 11, 9}, [3]float64{10, 10, 10}, [3]float64{40, 40, 40}, true, true},
		"behind mostly":             {64, [3]float64{11, 11, 9}, [3]float64{10, 10, 10}, [3]float64{40, 40, 40}, false, false},
		"few, within the spread":    {4, [3]float64{11, 11, 9}, [3]float64{10, 10, 10}, [3]float64{40, 40, 40}, true, true},
		"few, beyond the spread":    {4, [3]float64{12, 12, 11}, [3]float64{10, 10, 10}, [3]float64{40, 40, 40}, false, false},
		"paired, not by its median": {64, [3]float64{10, 20, 30}, [3]float64{11, 21, 29}, [3]float64{90, 90, 90}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Result{}
			for proxy, v := range map[string][3]float64{"sidecar-on": c.ours, "nginx": c.nginx, "envoy-on": c.envoy} {
				cell := Cell{Proxy: proxy, Body: "small", Connections: c.connections}
				for i, cpu := range v {
					cell.Samples = append(cell.Samples, Sample{Round: i, CPUMicros: cpu})
				}
				r.Load = append(r.Load, cell)
			}
			v := judge(r)
			if len(v) != 2 || v[0].Holds != c.wantNginx || v[1].Holds != c.wantEnvoy || v[0].BySpread != (name == "few, within the spread") {
				t.Errorf("got %+v, want %t, %t", v, c.wantNginx, c.wantEnvoy)
			}
		})
	}
}

func TestWhatWasNotMeasuredHasNoVerdict(t *testing.T) {
	if v := judge(&Result{}); len(v) != 0 {
		t.Errorf("got %+v", v)
	}
	small := &Result{Clusters: []ClusterRow{{Proxy: "sidecar-on", Clusters: 100, Rounds: []ClusterRound{{BytesPerCluster: 1}}}}}
	if v := judge(small); len(v) != 1 { // the time to be ready is one with a thousand
		t.Errorf("got %+v", v)
	}
}

func TestSpreads(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{5}, Spread{5, 5, 5, 1}},
		{[]float64{3, 1, 2}, Spread{2, 1, 3, 3}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4, 4}},
	} {
		if got := spreadOf(c.in); got != c.want {
			t.Errorf("%v: got %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	ours := []Sample{{Round: 0, CPUMicros: 10}, {Round: 1, CPUMicros: 30}, {Round: 3, CPUMicros: 1}}
	theirs := []Sample{{Round: 1, CPUMicros: 60}, {Round: 0, CPUMicros: 40}, {Round: 2, CPUMicros: 1}}
	if d := cmp.Diff([]float64{0.25, 0.5}, pairedRatios(ours, theirs)); d != "" {
		t.Error(d)
	}
}

func TestAxisStepsAreRound(t *testing.T) {
	for in, want := range map[float64]float64{0.7: 1, 1: 1, 1.1: 2, 2.5: 5, 6: 10, 18: 20, 21: 50} {
		if got := niceStep(in); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v: got %v, want %v", in, got, want)
		}
	}
}
