// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"bytes"
	"encoding/json"
	"math"
	"time"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	injectedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/injected_resource/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	monitorURL     = typeURLPrefix + "envoy.extensions.resource_monitors."
	fixedHeapURL   = monitorURL + "fixed_heap.v3.FixedHeapConfig"
	connectionsURL = monitorURL + "downstream_connections.v3.DownstreamConnectionsConfig"
	injectedURL    = monitorURL + "injected_resource.v3.InjectedResourceConfig"
	loopDelayURL   = typeURLPrefix + "io.outrigger.v1.LoopDelay"

	defaultOverloadRefresh = time.Second
	minOverloadRefresh     = 10 * time.Millisecond
	// defaultLoopDelay is how long a loop may take until it gets to what is new: there a
	// request has waited for longer than most callers do.
	defaultLoopDelay = 4 * time.Second
)

// overload reads the overload manager of a bootstrap; nil: it says nothing.
func (j *job) overload(m *overloadv3.OverloadManager, p *place) *resource.Overload {
	if m == nil {
		return nil
	}
	o := &resource.Overload{Refresh: j.duration(m.GetRefreshInterval(), defaultOverloadRefresh, p.field("refresh_interval"))}
	j.only(o.Refresh < minOverloadRefresh, p.field("refresh_interval"), "must be at least 10ms")
	names := map[string]bool{}
	for i, r := range m.GetResourceMonitors() {
		at := p.item("resource_monitors", i)
		j.only(names[r.GetName()], at.field("name"), "is that of another monitor")
		names[r.GetName()] = true
		o.Monitors = append(o.Monitors, j.monitor(r.GetName(), r.GetTypedConfig(), at.field("typed_config")))
	}
	var seen [resource.OverloadActions]bool
	for i, a := range m.GetActions() {
		at := p.item("actions", i)
		kind, ok := resource.OverloadActionByName(a.GetName())
		if !ok {
			j.fail(at.field("name"), "unsupported action %q", clip(a.GetName(), 100))
			continue
		}
		j.only(seen[kind], at.field("name"), "is that of another action")
		seen[kind] = true
		out := resource.OverloadAction{Kind: kind, Triggers: j.overloadTriggers(a.GetTriggers(), names, at)}
		if c := a.GetTypedConfig(); c != nil {
			j.only(kind != resource.ActionReduceTimeouts, at.field("typed_config"), notSupported)
			var s overloadv3.ScaleTimersOverloadActionConfig
			if kind == resource.ActionReduceTimeouts && j.unpack(c, &s, at.field("typed_config")) {
				j.scaledTimers(&s, &out, at.field("typed_config"))
			}
		} else {
			j.only(kind == resource.ActionReduceTimeouts, at.field("typed_config"), "is missing: it says which timeouts are reduced")
		}
		o.Actions = append(o.Actions, out)
	}
	o.Points = j.loadShedPoints(m.GetLoadshedPoints(), names, p)
	return o
}

func (j *job) monitor(name string, a *anypb.Any, p *place) resource.OverloadMonitor {
	out := resource.OverloadMonitor{Name: j.intern(name)}
	url := a.GetTypeUrl()
	if inner, _, ok := typedStruct(a); ok {
		url = inner
	}
	switch url {
	case fixedHeapURL:
		var m fixedheapv3.FixedHeapConfig
		j.unpack(a, &m, p)
		out.Kind, out.Max = resource.MonitorMemory, m.GetMaxHeapSizeBytes()
		j.only(out.Max == 0, p.field("max_heap_size_bytes"), "must be at least 1")
	case connectionsURL:
		var m connectionsv3.DownstreamConnectionsConfig
		j.unpack(a, &m, p)
		out.Kind, out.Max = resource.MonitorConnections, uint64(max(0, m.GetMaxActiveDownstreamConnections()))
	case injectedURL:
		var m injectedv3.InjectedResourceConfig
		j.unpack(a, &m, p)
		out.Kind, out.Max, out.File = resource.MonitorFile, 1, m.GetFilename()
	case loopDelayURL:
		_, text, _ := typedStruct(a)
		out.Kind, out.Max = resource.MonitorLoopDelay, uint64(j.loopDelay(text, p))
	default:
		j.fail(p, "unsupported resource monitor %q", clip(a.GetTypeUrl(), 200))
	}
	return out
}

// overloadTriggers reads those of an action or a load-shed point, whose place is at.
func (j *job) overloadTriggers(list []*overloadv3.Trigger, monitors map[string]bool, at *place) (out []resource.OverloadTrigger) {
	for i, t := range list {
		out = append(out, j.overloadTrigger(t, monitors, at.item("triggers", i)))
	}
	return out
}

func (j *job) overloadTrigger(t *overloadv3.Trigger, names map[string]bool, p *place) resource.OverloadTrigger {
	out := resource.OverloadTrigger{Monitor: j.intern(t.GetName())}
	j.only(!names[t.GetName()], p.field("name"), "is no resource monitor's")
	switch v := t.GetTriggerOneof().(type) {
	case *overloadv3.Trigger_Threshold:
		out.From, out.To = v.Threshold.GetValue(), v.Threshold.GetValue()
	case *overloadv3.Trigger_Scaled:
		out.From, out.To = v.Scaled.GetScalingThreshold(), v.Scaled.GetSaturationThreshold()
		j.only(!(out.From < out.To), p.field("scaled"), "scaling_threshold must be less than saturation_threshold")
	}
	j.only(math.IsNaN(out.From) || math.IsNaN(out.To), p, "is no number")
	return out
}

func (j *job) scaledTimers(m *overloadv3.ScaleTimersOverloadActionConfig, a *resource.OverloadAction, p *place) {
	for i, t := range m.GetTimerScaleFactors() {
		at := p.item("timer_scale_factors", i)
		s := resource.ScaledTimeout{
			On: true, Min: j.duration(t.GetMinTimeout(), 0, at.field("min_timeout")), Percent: j.percent(t.GetMinScale(), 0, at.field("min_scale")),
		}
		to := &a.ConnectionIdle
		switch t.GetTimer() {
		case overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_CONNECTION_IDLE:
		case overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_STREAM_IDLE:
			to = &a.StreamIdle
		default:
			j.fail(at.field("timer"), "unsupported %s", t.GetTimer())
			continue
		}
		j.only(to.On, at.field("timer"), "is that of another factor")
		*to = s
	}
}

// loopDelay reads our monitor's {"maxDelayMs": 4000}.
func (j *job) loopDelay(text []byte, p *place) time.Duration {
	var s struct {
		MaxDelayMS *int `json:"maxDelayMs"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		j.fail(p.field("value"), "%s", clip(err.Error(), 300))
	}
	return time.Duration(j.number(s.MaxDelayMS, int(defaultLoopDelay/time.Millisecond), 1, 600_000, p.field("value").field("maxDelayMs"))) * time.Millisecond
}
