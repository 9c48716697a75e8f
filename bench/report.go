// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// write puts the report, the plots and the figures into a folder and returns the
// report's path. What is called latest is replaced only by a run that is whole and
// valid.
func (r *Result) write(folder string) (string, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("--out: %w", err)
	}
	figures, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", err
	}
	date := r.Started.Format("2006-01-02T1504Z")
	if r.Options.Quick {
		date = "quick" // says nothing about speed: never takes the place of a run that does
	}
	path := filepath.Join(folder, date+".md")
	save := func(name string, text []byte) {
		err = errors.Join(err, os.WriteFile(filepath.Join(folder, name), text, 0o644))
	}
	plot := []byte(nil)
	if len(r.Load)+len(r.Protocols) > 0 {
		plot = []byte(r.plot())
		save(date+".svg", plot)
	}
	save(date+".md", []byte(r.markdown(date+".svg")))
	save(date+".json", figures)
	if r.complete() {
		save("latest.svg", plot)
		save("latest.md", []byte(r.markdown("latest.svg")))
		save("latest.json", figures)
	}
	return path, err
}

// complete is true for a run without faults that has measured everything.
func (r *Result) complete() bool {
	o := &r.Options
	return len(r.Faults) == 0 && !o.Quick && o.Load && o.Protocol && o.Idle && o.Clusters && len(o.Only) == 0 &&
		len(o.Bodies) >= len(bodies) && len(o.Protocols) >= len(scenarios) && len(o.Connections) >= 3
}

// markdown is the whole report; plot is the name of the picture beside it.
func (r *Result) markdown(plot string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("# Benchmark of %s\n\n", r.Started.Format("2006-01-02 15:04 UTC"))
	if len(r.Faults) > 0 {
		p("**This run is invalid:**\n\n")
		for _, f := range r.Faults {
			p("- %s\n", f)
		}
		p("\n")
	}
	if r.Options.Quick {
		p("A quick run: it shows that everything works, not how fast.\n\n")
	}
	p("`go run ./bench`, commit %s, %s, sidecar %s, took %s.\n\n", r.Commit, r.Machine.Go, r.SidecarBuild, r.Took)
	p("%s, %d CPUs, %d MiB, Linux %s. ", r.Machine.CPU, r.Machine.CPUs, r.Machine.MemoryMiB, r.Machine.Kernel)
	p("nginx %s, HAProxy %s, Envoy %s, wrk %s, h2load %s.\n\n", r.Versions["nginx"], r.Versions["haproxy"], r.Versions["envoy"], r.Versions["wrk"], r.Versions["h2load"])
	r.verdicts(p)
	if len(r.Load) > 0 {
		r.loadTables(p, plot)
	}
	if len(r.Protocols) > 0 {
		r.protocolTables(p, plot)
	}
	r.restTables(p)
	return b.String()
}

func (r *Result) verdicts(p func(string, ...any)) {
	if len(r.Verdicts) == 0 {
		return
	}
	p("## Bars\n\n| bar | measured | verdict |\n|---|---|---|\n")
	for _, v := range r.Verdicts {
		p("| %s | %s | %s |\n", v.Bar, v.Measured, v.text())
	}
	p("\n")
}

func (v Verdict) text() string {
	switch {
	case v.BySpread:
		return "**only by the spread**"
	case v.Holds:
		return "holds"
	default:
		return "**does not hold**"
	}
}

const loadNotes = `One core for each proxy, HTTP/1.1 with keep-alive. Medians of %d interleaved rounds
of %s, least and greatest in parentheses. CPU is the kernel's figure for all
threads of the proxy, user and system; ratios are taken round by round. With
features (names in -on): JSON access log, trace context (B3 and W3C, 1 %% sampled
and exported to Zipkin), metrics, request id, outlier detection, least request,
retry policy, circuit breaker (Hystrix semantics in the sidecar, thresholds in
Envoy). Core is the share of its core that the proxy used: where it is below
100 %% the backend and the load generator, which share the other core, were the
limit of requests/s, and latencies are theirs too. PSS is resident memory, shared
pages by their share, after the load. Others is what other programs took of the
proxy's core, and stolen what the hypervisor did.

`

func (r *Result) loadTables(p func(string, ...any), plot string) {
	p("## Load\n\n")
	p(loadNotes, r.Options.Rounds, r.Options.Duration)
	p("![CPU per request](%s)\n\n", plot)
	for _, body := range r.Options.Bodies {
		for _, n := range r.Options.Connections {
			r.loadTable(p, body, n)
		}
	}
}

func (r *Result) loadTable(p func(string, ...any), body string, connections int) {
	p("### %s body, %d connections\n\n", body, connections)
	p("| proxy | CPU µs/request | user µs | × nginx | × envoy-on | requests/s | p50 ms | p99 ms | core %% | PSS MB | failed | others, stolen %% |\n")
	p("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, x := range proxies {
		c := r.cell(x.Name, body, connections)
		if c == nil {
			continue
		}
		cpu := c.cpu()
		of := func(figure func(Sample) float64) float64 { return spreadBy(c.Samples, figure).Median }
		var lost, asked int64
		for _, s := range c.Samples {
			lost += s.Failed
			asked += s.Requests
		}
		p("| %s | %.2f (%.2f–%.2f) | %.2f | %s | %s | %.0f | %.2f | %.2f | %.0f | %.1f | %d of %d | %.0f, %.0f |\n",
			c.Proxy, cpu.Median, cpu.Min, cpu.Max,
			of(func(s Sample) float64 { return s.UserMicros }),
			orDash(c.ratioTo(r.cell("nginx", body, connections))),
			orDash(c.ratioTo(r.cell("envoy-on", body, connections))),
			of(func(s Sample) float64 { return s.PerSecond }),
			of(func(s Sample) float64 { return s.P50Micros / 1e3 }),
			of(func(s Sample) float64 { return s.P99Micros / 1e3 }),
			of(func(s Sample) float64 { return s.CoreShare * 100 }),
			of(func(s Sample) float64 { return float64(s.Memory.PSS) / 1e6 }),
			lost, asked,
			of(func(s Sample) float64 { return s.OthersShare * 100 }),
			of(func(s Sample) float64 { return s.StealShare * 100 }))
	}
	p("\n")
}

func orDash(s Spread) string {
	if s.N == 0 {
		return "–"
	}
	return ratioText(s)
}

func (r *Result) restTables(p func(string, ...any)) {
	if len(r.Idle) > 0 {
		p("## At rest, and with idle connections\n\n")
		p("Fresh processes, features on where there are any. Connections wait for their\nnext request. Served is with the first tenth of them, after ten requests on each; the\nothers have had one, and what each of them added is in the last column. What the kernel\nkeeps for a socket is not in it, nor what nginx has set aside for connections at its start.\n\n")
		p("| proxy | at rest, resident | at rest, PSS | served | connections | with them | for each connection |\n|---|---|---|---|---|---|---|\n")
		for i := range r.Idle {
			x := &r.Idle[i]
			pss := spreadBy(x.Rounds, func(x IdleRound) float64 { return float64(x.AtRest.PSS) })
			p("| %s | %s | %s | %s | %d | %s | %s |\n", x.Proxy, bytesText(x.atRest()), bytesText(pss),
				bytesText(x.served()), x.Connections, bytesText(x.connected()), bytesText(x.perConnection()))
		}
		p("\n")
	}
	if len(r.IdleTLS) > 0 {
		p("## Idle connections of TLS\n\n")
		p("The same over TLS 1.3, in processes of their own.\n\n")
		p("| proxy | connections | for each connection |\n|---|---|---|\n")
		for i := range r.IdleTLS {
			x := &r.IdleTLS[i]
			p("| %s | %d | %s |\n", x.Proxy, x.Connections, bytesText(x.perConnection()))
		}
		p("\n")
	}
	if len(r.Clusters) > 0 {
		p("## Clusters\n\n")
		p("Static clusters of ten endpoints in a bootstrap file (JSON). Ready is from the start of\nthe process to the first forwarded request, on one core.\n\n")
		p("| proxy | clusters | ready | of it CPU | ready with none | for each cluster |\n|---|---|---|---|---|---|\n")
		for i := range r.Clusters {
			x := &r.Clusters[i]
			bare := spreadBy(x.Rounds, func(x ClusterRound) float64 { return x.Bare.ReadySeconds })
			cpu := spreadBy(x.Rounds, func(x ClusterRound) float64 { return x.Full.CPUSeconds })
			p("| %s | %d | %s | %s | %s | %s |\n", x.Proxy, x.Clusters, secondsText(x.ready()), secondsText(cpu), secondsText(bare), bytesText(x.perCluster()))
		}
		p("\n")
	}
}

// summary is what a terminal shows at the end.
func (r *Result) summary() string {
	var b strings.Builder
	for i := range r.Load {
		c := &r.Load[i]
		cpu := c.cpu()
		fmt.Fprintf(&b, "%-10s %-5s %4d connections  %6.2f µs/request (%.2f–%.2f)\n", c.Proxy, c.Body, c.Connections, cpu.Median, cpu.Min, cpu.Max)
	}
	for i := range r.Protocols {
		x := &r.Protocols[i]
		cpu := x.cpu()
		fmt.Fprintf(&b, "%-10s %-17s  %7.2f µs (%.2f–%.2f)\n", x.Proxy, x.Scenario, cpu.Median, cpu.Min, cpu.Max)
	}
	for _, v := range r.Verdicts {
		fmt.Fprintf(&b, "%-22s  %s: %s\n", v.text(), v.Bar, v.Measured)
	}
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "FAULT  %s\n", f)
	}
	return b.String()
}
