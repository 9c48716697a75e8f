// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/admin"
	"github.com/outrigger-mesh/outrigger/pkg/breaker/hystrixstream"
	"github.com/outrigger-mesh/outrigger/pkg/handover"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// startAdmin binds the admin port; without an address there is none.
func (d *plane) startAdmin(ctx context.Context) (*admin.Server, error) {
	o := &d.env.Options
	addr := d.adminAddress()
	if addr == "" {
		return nil, nil
	}
	inherited, err := d.inheritedAdmin(addr)
	if err != nil {
		return nil, err
	}
	watch := proxy.NewPanicWatch(d.proxy)
	d.run(ctx, "panic watch", watch.Run)
	s, err := admin.New(admin.Config{
		Address: addr, Listener: inherited, TokenFile: o.AdminTokenFile,
		Proxy: d.proxy, State: func() admin.State { return d.state(watch) }, Started: time.Now(),
		Epoch: d.env.Epoch, HotRestart: strconv.Itoa(handover.Version),
		Version: version(), Concurrency: o.Concurrency, Node: nodeInfo(d.boot.Node),
		Options: map[string]any{"concurrency": o.Concurrency, "config_path": o.ConfigPath, "service": o.Service, "drain_time": o.DrainTime.String()},
		Dump:    d.client.Dump, Waiting: func() []string { return d.client.Status().Waiting },
		Samples: d.samples, Certificates: d.certificates,
		Pages: []admin.Page{
			{Path: "/agent", Help: "registration, lease and uploads", JSON: func() any { return d.env.AgentStatus() }},
			{Path: "/mutual-tls", Help: "this sidecar's identity, and what its inbound listeners take", JSON: d.mutualTLS},
			{Path: "/xds", Help: "what the configuration sources sent, and what was refused and why", JSON: func() any { return d.client.Status() }},
			{Path: "/telemetry", Help: "spans, tap records and access log lines: sent, waiting, dropped", JSON: d.telemetry},
			{Path: "/explain", Help: "where a request would go, and why; nothing is sent", Answer: d.explain, Params: explainParams},
			{Path: "/ejections", Help: "the last ejections of endpoints, with their reasons", JSON: func() any { return d.proxy.Ejections() }},
		},
		Events:  d.env.Events,
		Hystrix: hystrixstream.Handler(d.proxy.Breakers), AllowTap: o.AdminTap, Profiling: o.AdminProfiling,
		Level: d.env.LogLevel, Drain: d.drainByAdmin, HealthCheck: d.proxy.FailHealthChecks, Quit: d.env.Quit, ReopenLogs: d.logs.Reopen,
		Log: d.env.Logger.With("part", "admin"),
	})
	if err != nil {
		return nil, busyAddress("admin", err)
	}
	d.done.Go(func() {
		select {
		case <-d.taken:
		case <-ctx.Done():
			return
		}
		d.awaitCounters(ctx)
		if err := s.Serve(); err != nil {
			d.env.Logger.Error("admin port ended", "error", err)
		}
	})
	return s, nil
}

// awaitCounters waits until a predecessor has said what it has counted: who asks for
// counters must not see them go back. One that does not say it in time is not waited for.
func (d *plane) awaitCounters(ctx context.Context) {
	if !d.env.Heritage.isWaiting() {
		return
	}
	limited, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	select {
	case <-d.counted:
	case <-limited.Done():
	}
}

// state is what /ready answers: live with a complete configuration in service.
func (d *plane) state(watch *proxy.PanicWatch) admin.State {
	switch {
	case d.proxy.Draining() || watch.Tripped():
		return admin.Draining
	case !d.isConfigured():
		return admin.PreInitializing
	}
	return admin.Live
}

func (d *plane) isConfigured() bool {
	select {
	case <-d.configured:
		return true
	default:
		return false
	}
}

// drainByAdmin begins what /drain_listeners asks for.
func (d *plane) drainByAdmin(how admin.Drain) {
	scope := proxy.DrainAll
	if how.InboundOnly {
		scope = proxy.DrainInbound
	}
	if !how.Graceful {
		d.proxy.StopListening(scope)
		return
	}
	d.done.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), d.env.Options.DrainTime)
		defer cancel()
		if err := d.proxy.Drain(ctx, scope); err != nil {
			d.env.Logger.Warn("drained only in part", "error", err)
		}
		if !how.SkipExit {
			d.proxy.StopListening(scope)
		}
	})
}

// telemetry is the page of what leaves the sidecar beside traffic.
func (d *plane) telemetry() any {
	page := map[string]any{"spans": d.spans.Stats(), "accessLogs": d.logs.Stats(), "tap": d.hub.Counts(), "tapWriter": d.tap.Stats()}
	if d.spool != nil {
		page["tapSpool"] = d.spool.Stats()
	}
	return page
}

// samples are the numbers of the parts beside the data path.
func (d *plane) samples() []metrics.Sample {
	var out []metrics.Sample
	add := func(kind metrics.Kind, name, help string, v uint64) {
		out = append(out, metrics.Sample{Name: name, Help: help, Kind: kind, Value: v})
	}
	connected, nacks, oversized := uint64(1), uint64(0), uint64(0)
	st := d.client.Status()
	for i := range st.Sources {
		if !st.Sources[i].Connected {
			connected = 0
		}
		oversized += st.Sources[i].Oversized
		for j := range st.Sources[i].Types {
			nacks += st.Sources[i].Types[j].Rejected
		}
	}
	add(metrics.KindCounter, "outrigger.memory_releases_total", "Times memory that changes of configuration had needed was given back.", d.trims.Load())
	add(metrics.KindGauge, "control_plane.connected_state", "1 while every configuration source is connected", connected)
	add(metrics.KindCounter, "control_plane.rejected", "responses refused (NACK)", nacks)
	add(metrics.KindCounter, "control_plane.oversized", "responses larger than --xds-max-response-bytes, not taken", oversized)
	add(metrics.KindGauge, "control_plane.snapshot", "version of the configuration published last", st.Snapshot)
	d.client.Subscriptions(func(s *client.Subscription) bool {
		out = subscriptionSamples(out, s)
		return true
	})
	for i := range st.Extensions {
		x := &st.Extensions[i]
		prefix := "extension_config_discovery.http_filter." + statName(x.Name) + "."
		add(metrics.KindCounter, prefix+"config_reload", "Configurations of the filter that came, changed or went by ECDS.", x.Reloads)
		add(metrics.KindCounter, prefix+"config_fail", "Configurations of the filter that were refused, did not come in time, or whose file could not be read.", x.Failures)
		add(metrics.KindCounter, prefix+"config_conflict", "Configurations of the filter that a listener could not use, by their type.", x.Conflicts)
	}
	add(metrics.KindCounter, "outrigger.events", "decisions and other events since the start, see /events", d.env.Events.Last())
	out = append(out, d.certificateSamples()...)
	var sent, dropped uint64
	for _, s := range d.spans.Stats() {
		sent, dropped = sent+s.Sent, dropped+s.Dropped+s.Failed
	}
	add(metrics.KindCounter, "outrigger.spans_sent", "spans handed to a collector", sent)
	add(metrics.KindCounter, "outrigger.spans_dropped", "spans lost to a full queue or a collector that refused them", dropped)
	var lines, lost uint64
	for _, s := range d.logs.Stats() {
		lines, lost = lines+s.Lines, lost+s.Dropped
	}
	add(metrics.KindCounter, "outrigger.access_log_lines", "access log lines accepted", lines)
	add(metrics.KindCounter, "outrigger.access_log_dropped", "access log lines that found their buffer full", lost)
	c := d.hub.Counts()
	add(metrics.KindCounter, "outrigger.tap_records", "exchanges tapped", c.Produced)
	add(metrics.KindCounter, "outrigger.tap_dropped", "tapped exchanges that found their ring full", c.Dropped)
	out = append(out, d.lookups.samples()...)
	return append(out, d.dnsSamples()...)
}

// nodeInfo is the node in Envoy's shape.
func nodeInfo(n decode.Node) admin.NodeInfo {
	return admin.NodeInfo{
		ID: n.ID, Cluster: n.Cluster, Metadata: n.Metadata,
		Locality: admin.Locality{Region: n.Region, Zone: n.Zone, SubZone: n.SubZone},
	}
}
