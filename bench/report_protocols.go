// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

const protocolNotes = `One core for each proxy, or for two where the path has two of them; the sidecar and
Envoy with the features of -on, nginx and HAProxy without. Medians of %d interleaved
rounds of %s, least and greatest in parentheses; ratios are taken round by round.
HTTP/2 is h2load's load, HTTP/1.1 wrk's, both with the small body and nginx behind.
gRPC, handshakes and TCP are loads of this program, which looks at every answer: its
own bare ends of HTTP/2 for gRPC, crypto/tls with X25519 and TLS 1.3 for handshakes,
eight clients at a time. nginx has no HTTP/2 to a server but gRPC's. A dash is what a
generator does not tell.

`

// protocolTables are one for each scenario.
func (r *Result) protocolTables(p func(string, ...any), plot string) {
	p("## Protocols\n\n")
	p(protocolNotes, r.Options.Rounds, r.Options.Duration)
	if len(r.Load) == 0 {
		p("![CPU per request](%s)\n\n", plot)
	}
	for i := range scenarios {
		r.protocolTable(p, &scenarios[i])
	}
}

func (r *Result) protocolTable(p func(string, ...any), x *scenario) {
	p("### %s: %s\n\n", x.Name, x.Title)
	if r.countRows(x) == 0 {
		p("Not measured.\n\n")
		return
	}
	p("| proxy | CPU µs/%s | user µs | × nginx | × haproxy | × envoy-on | per second | p50 ms | p99 ms | core %% | PSS MB | failed | others, stolen %% |\n", x.Unit)
	p("|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, proxy := range proxies {
		row := r.protocol(proxy.Name, x.Name)
		if row == nil {
			continue
		}
		cpu := row.cpu()
		of := func(figure func(Sample) float64) float64 { return spreadBy(row.Samples, figure).Median }
		var lost, asked int64
		for _, s := range row.Samples {
			lost += s.Failed
			asked += s.Requests
		}
		p("| %s | %.2f (%.2f–%.2f) | %.2f | %s | %s | %s | %.0f | %s | %s | %.0f | %.1f | %d of %d | %.0f, %.0f |\n",
			row.Proxy, cpu.Median, cpu.Min, cpu.Max,
			of(func(s Sample) float64 { return s.UserMicros }),
			orDash(row.ratioTo(r.protocol("nginx", x.Name))),
			orDash(row.ratioTo(r.protocol("haproxy", x.Name))),
			orDash(row.ratioTo(r.protocol("envoy-on", x.Name))),
			of(func(s Sample) float64 { return s.PerSecond }),
			knownMillis(of(func(s Sample) float64 { return s.P50Micros })),
			knownMillis(of(func(s Sample) float64 { return s.P99Micros })),
			of(func(s Sample) float64 { return s.CoreShare * 100 }),
			of(func(s Sample) float64 { return float64(s.Memory.PSS) / 1e6 }),
			lost, asked,
			of(func(s Sample) float64 { return s.OthersShare * 100 }),
			of(func(s Sample) float64 { return s.StealShare * 100 }))
	}
	p("\n")
}

func (r *Result) countRows(x *scenario) (n int) {
	for _, proxy := range proxies {
		if r.protocol(proxy.Name, x.Name) != nil {
			n++
		}
	}
	return n
}

func knownMillis(micros float64) string {
	if micros == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", micros/1e3)
}
