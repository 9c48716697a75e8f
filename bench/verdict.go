// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// The bars that the sidecar has to clear.
const (
	maxToNginx        = 1.0
	maxResilience     = 1.10
	maxToEnvoy        = 0.25
	maxToEnvoyFew     = 0.28
	fewConnections    = 4 // up to so many, nginx's bar is met within the spread
	maxRestBytes      = 25e6
	maxIdleConnBytes  = 2e3
	maxClusterBytes   = 8e3
	maxReadySeconds   = 0.4
	readyClusterCount = 1000
)

// Verdict is whether one bar is cleared in this run.
type Verdict struct {
	Bar      string `json:"bar"`
	Measured string `json:"measured"`
	Holds    bool   `json:"holds"`
	// BySpread is set where only the spread, not the median, clears a bar that
	// allows for it: less noise may show that it does not hold.
	BySpread bool `json:"bySpread,omitempty"`
}

// judge compares what was measured with the bars; what was not measured has no
// verdict.
func judge(r *Result) []Verdict {
	var out []Verdict
	for i := range r.Load {
		if c := &r.Load[i]; c.Proxy == "sidecar-on" {
			out = append(out, judgeCell(r, c)...)
		} else if x := c.ratioTo(r.cell("sidecar-on", c.Body, c.Connections)); c.Proxy == "sidecar-all" && x.N > 0 {
			out = append(out, Verdict{
				Bar:      fmt.Sprintf("%s body, %d connections: CPU with all of resilience at most %.2f × without", c.Body, c.Connections, maxResilience),
				Measured: ratioText(x), Holds: x.Median <= maxResilience,
			})
		}
	}
	add := func(holds bool, measured, bar string, args ...any) {
		out = append(out, Verdict{Bar: fmt.Sprintf(bar, args...), Measured: measured, Holds: holds})
	}
	out = append(out, judgeProtocols(r)...)
	if row := r.idle("sidecar-on"); row != nil {
		rest, conn := row.atRest(), row.perConnection()
		add(rest.Median <= maxRestBytes, bytesText(rest), "sidecar at rest: at most %s resident", quantity(maxRestBytes))
		add(conn.Median <= maxIdleConnBytes, bytesText(conn), "sidecar: at most %s for an idle connection", quantity(maxIdleConnBytes))
	}
	if row := r.clusters("sidecar-on"); row != nil {
		per, ready := row.perCluster(), row.ready()
		add(per.Median <= maxClusterBytes, bytesText(per), "sidecar: at most %s for a cluster of ten endpoints", quantity(maxClusterBytes))
		if row.Clusters >= readyClusterCount {
			add(ready.Median <= maxReadySeconds, secondsText(ready), "sidecar: ready with %d clusters in at most %.1f s", row.Clusters, maxReadySeconds)
		}
	}
	return out
}

func judgeCell(r *Result, c *Cell) []Verdict {
	var out []Verdict
	where := fmt.Sprintf("%s body, %d connections", c.Body, c.Connections)
	few := c.Connections <= fewConnections
	if x := c.ratioTo(r.cell("nginx", c.Body, c.Connections)); x.N > 0 {
		v := Verdict{Measured: ratioText(x), Holds: x.Median <= maxToNginx}
		v.Bar = fmt.Sprintf("%s: CPU with all features at most %.2f × nginx with none", where, maxToNginx)
		if few {
			v.Bar += ", within the spread"
			v.BySpread = !v.Holds && x.Min <= maxToNginx
			v.Holds = x.Min <= maxToNginx
		}
		out = append(out, v)
	}
	if x := c.ratioTo(r.cell("envoy-on", c.Body, c.Connections)); x.N > 0 {
		limit := maxToEnvoy
		if few {
			limit = maxToEnvoyFew
		}
		out = append(out, Verdict{
			Bar:      fmt.Sprintf("%s: CPU with all features at most %.2f × Envoy with the same", where, limit),
			Measured: ratioText(x), Holds: x.Median <= limit,
		})
	}
	return out
}

func (r *IdleRow) atRest() Spread {
	return spreadBy(r.Rounds, func(x IdleRound) float64 { return float64(x.AtRest.RSS) })
}

func (r *IdleRow) served() Spread {
	return spreadBy(r.Rounds, func(x IdleRound) float64 { return float64(x.Served.RSS) })
}

func (r *IdleRow) connected() Spread {
	return spreadBy(r.Rounds, func(x IdleRound) float64 { return float64(x.Connected.RSS) })
}

func (r *IdleRow) perConnection() Spread {
	return spreadBy(r.Rounds, func(x IdleRound) float64 { return x.BytesPerConnection })
}

func (r *ClusterRow) perCluster() Spread {
	return spreadBy(r.Rounds, func(x ClusterRound) float64 { return x.BytesPerCluster })
}

func (r *ClusterRow) ready() Spread {
	return spreadBy(r.Rounds, func(x ClusterRound) float64 { return x.Full.ReadySeconds })
}

func ratioText(s Spread) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max)
}

func secondsText(s Spread) string {
	return fmt.Sprintf("%.3f s (%.3f–%.3f)", s.Median, s.Min, s.Max)
}

// bytesText is a spread of sizes, in the unit of its median.
func bytesText(s Spread) string {
	unit, name := 1e3, "kB"
	if s.Median >= 1e6 {
		unit, name = 1e6, "MB"
	}
	return fmt.Sprintf("%.2f %s (%.2f–%.2f)", s.Median/unit, name, s.Min/unit, s.Max/unit)
}

func quantity(bytes float64) string {
	if bytes >= 1e6 {
		return fmt.Sprintf("%.0f MB", bytes/1e6)
	}
	return fmt.Sprintf("%.0f kB", bytes/1e3)
}
