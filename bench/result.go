// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// Result is all that one run found; tables, plot and verdicts are made from it
// alone, and latest.json is it.
type Result struct {
	Started  time.Time         `json:"started"`
	Took     time.Duration     `json:"tookNanos"`
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Commit   string            `json:"commit"`
	// SidecarBuild is the build of the sidecar that was measured.
	SidecarBuild string  `json:"sidecarBuild,omitempty"`
	Options      Options `json:"options"`

	Load     []Cell       `json:"load,omitempty"`
	Idle     []IdleRow    `json:"idle,omitempty"`
	Clusters []ClusterRow `json:"clusters,omitempty"`

	Protocols []ProtocolRow `json:"protocols,omitempty"`
	IdleTLS   []IdleRow     `json:"idleTLS,omitempty"`

	// Faults are what makes the run invalid: requests that failed, features that
	// were not at work.
	Faults   []string  `json:"faults,omitempty"`
	Verdicts []Verdict `json:"verdicts"`
}

// Machine is where the run took place.
type Machine struct {
	CPU       string `json:"cpu"`
	CPUs      int    `json:"cpus"`
	Kernel    string `json:"kernel"`
	MemoryMiB int64  `json:"memoryMiB"`
	Go        string `json:"go"`
}

// Cell is one proxy under one load.
type Cell struct {
	Proxy       string   `json:"proxy"`
	Features    bool     `json:"features"`
	Body        string   `json:"body"`
	Connections int      `json:"connections"`
	Samples     []Sample `json:"samples"`
}

// ProtocolRow is one proxy under one scenario of the protocols. Its samples count
// what the scenario says.
type ProtocolRow struct {
	Proxy    string   `json:"proxy"`
	Features bool     `json:"features"`
	Scenario string   `json:"scenario"`
	Samples  []Sample `json:"samples"`
}

// Sample is one run of a load. What its generator does not tell is 0.
type Sample struct {
	Round      int     `json:"round"`
	Requests   int64   `json:"requests"`
	Failed     int64   `json:"failed"` // socket errors, non-2xx and short bodies
	CPUMicros  float64 `json:"cpuMicrosPerRequest"`
	UserMicros float64 `json:"userMicrosPerRequest"`
	PerSecond  float64 `json:"requestsPerSecond"`
	P50Micros  float64 `json:"p50Micros"`
	P99Micros  float64 `json:"p99Micros"`
	Memory     memory  `json:"memory"`
	// CoreShare is what the proxy had of its core, OthersShare what other programs
	// had of it and StealShare what the hypervisor took: the noise of the sample.
	CoreShare   float64 `json:"coreShare"`
	OthersShare float64 `json:"othersShare"`
	StealShare  float64 `json:"stealShare"`
}

// IdleRow is one proxy at rest.
type IdleRow struct {
	Proxy       string      `json:"proxy"`
	Connections int         `json:"connections"`
	Rounds      []IdleRound `json:"rounds"`
}

// IdleRound is one fresh process: before traffic, after the first requests over a
// share of the connections, and with all of them waiting for the next request.
type IdleRound struct {
	Round              int     `json:"round"`
	AtRest             memory  `json:"atRest"`
	Served             memory  `json:"served"`
	Connected          memory  `json:"connected"`
	BytesPerConnection float64 `json:"bytesPerConnection"`
	Failed             int     `json:"failed"`
}

// ClusterRow is one proxy with many clusters of ten endpoints.
type ClusterRow struct {
	Proxy    string         `json:"proxy"`
	Clusters int            `json:"clusters"`
	Rounds   []ClusterRound `json:"rounds"`
}

// ClusterRound is two fresh processes: one with the clusters, one without.
type ClusterRound struct {
	Round           int     `json:"round"`
	Bare            Start   `json:"bare"`
	Full            Start   `json:"full"`
	BytesPerCluster float64 `json:"bytesPerCluster"`
}

// Start is one fresh process: until it forwarded its first request, and at rest.
type Start struct {
	ReadySeconds float64 `json:"readySeconds"`
	CPUSeconds   float64 `json:"cpuSeconds"` // what of it the proxy computed
	Memory       memory  `json:"memory"`
}

func (r *Result) cell(proxy, body string, connections int) *Cell {
	for i := range r.Load {
		c := &r.Load[i]
		if c.Proxy == proxy && c.Body == body && c.Connections == connections {
			return c
		}
	}
	return nil
}

func (r *Result) protocol(proxy, scenario string) *ProtocolRow {
	for i := range r.Protocols {
		if p := &r.Protocols[i]; p.Proxy == proxy && p.Scenario == scenario {
			return p
		}
	}
	return nil
}

func (r *Result) idle(proxy string) *IdleRow { return idleRow(r.Idle, proxy) }

func idleRow(rows []IdleRow, proxy string) *IdleRow {
	for i := range rows {
		if rows[i].Proxy == proxy {
			return &rows[i]
		}
	}
	return nil
}

func (r *Result) clusters(proxy string) *ClusterRow {
	for i := range r.Clusters {
		if r.Clusters[i].Proxy == proxy {
			return &r.Clusters[i]
		}
	}
	return nil
}

func (c *Cell) cpu() Spread {
	return spreadBy(c.Samples, func(s Sample) float64 { return s.CPUMicros })
}

func (p *ProtocolRow) cpu() Spread {
	return spreadBy(p.Samples, func(s Sample) float64 { return s.CPUMicros })
}

// ratioTo is the spread of CPU time over that of another row, round by round.
func (p *ProtocolRow) ratioTo(other *ProtocolRow) Spread {
	if p == nil || other == nil {
		return Spread{}
	}
	return spreadOf(pairedRatios(p.Samples, other.Samples))
}

// ratioTo is the spread of CPU per request over that of another cell, round by
// round; N is 0 where there is no such cell.
func (c *Cell) ratioTo(other *Cell) Spread {
	if c == nil || other == nil {
		return Spread{}
	}
	return spreadOf(pairedRatios(c.Samples, other.Samples))
}
