// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const monitorHead = `"@type": type.googleapis.com/envoy.extensions.resource_monitors.`

func TestTheOverloadManagerIsRead(t *testing.T) {
	b, err := decode.Bootstrap([]byte(`
overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - {name: heap, typed_config: {`+monitorHead+`fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 1000000}}
  - {name: cx, typed_config: {`+monitorHead+`downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 7}}
  - {name: file, typed_config: {`+monitorHead+`injected_resource.v3.InjectedResourceConfig, filename: /tmp/x}}
  - {name: delay, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/io.outrigger.v1.LoopDelay, value: {maxDelayMs: 50}}}
  actions:
  - {name: envoy.overload_actions.stop_accepting_requests, triggers: [{name: heap, threshold: {value: 0.95}}, {name: delay, scaled: {scaling_threshold: 0.5, saturation_threshold: 1}}]}
  - name: envoy.overload_actions.reduce_timeouts
    triggers: [{name: file, threshold: {value: 1}}]
    typed_config:
      "@type": type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig
      timer_scale_factors: [{timer: HTTP_DOWNSTREAM_CONNECTION_IDLE, min_timeout: 2s}, {timer: HTTP_DOWNSTREAM_STREAM_IDLE, min_scale: {value: 10}}]
  loadshed_points:
  - {name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: heap, threshold: {value: 0.98}}]}
  - {name: envoy.load_shed_points.http2_server_go_away_on_dispatch, triggers: [{name: delay, scaled: {scaling_threshold: 0.5, saturation_threshold: 1}}]}
`), "b.yaml", testFilters())
	if err != nil {
		t.Fatal(err)
	}
	want := &resource.Overload{
		Refresh: 250 * time.Millisecond,
		Monitors: []resource.OverloadMonitor{
			{Name: "heap", Kind: resource.MonitorMemory, Max: 1_000_000}, {Name: "cx", Kind: resource.MonitorConnections, Max: 7},
			{Name: "file", Kind: resource.MonitorFile, Max: 1, File: "/tmp/x"}, {Name: "delay", Kind: resource.MonitorLoopDelay, Max: uint64(50 * time.Millisecond)},
		},
		Actions: []resource.OverloadAction{
			{Kind: resource.ActionStopAcceptingRequests, Triggers: []resource.OverloadTrigger{{Monitor: "heap", From: 0.95, To: 0.95}, {Monitor: "delay", From: 0.5, To: 1}}},
			{
				Kind: resource.ActionReduceTimeouts, Triggers: []resource.OverloadTrigger{{Monitor: "file", From: 1, To: 1}},
				ConnectionIdle: resource.ScaledTimeout{On: true, Min: 2 * time.Second}, StreamIdle: resource.ScaledTimeout{On: true, Percent: 10},
			},
		},
		Points: []resource.LoadShedPoint{
			{Kind: resource.ShedAccept, Triggers: []resource.OverloadTrigger{{Monitor: "heap", From: 0.98, To: 0.98}}},
			{Kind: resource.ShedGoAway, Triggers: []resource.OverloadTrigger{{Monitor: "delay", From: 0.5, To: 1}}},
		},
	}
	if !reflect.DeepEqual(b.Overload, want) {
		t.Errorf("got %+v, want %+v", b.Overload, want)
	}
	if b, err = decode.Bootstrap([]byte("{}"), "b.yaml", testFilters()); err != nil || b.Overload != nil {
		t.Errorf("without a word there is %+v, %v", b.Overload, err)
	}
}

func TestWrongOverloadManagersAreRefusedByPath(t *testing.T) {
	const point = `{name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: heap, threshold: {value: 1}}]}`
	heap := `resource_monitors: [{name: heap, typed_config: {` + monitorHead + `fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 1}}]`
	for text, want := range map[string]string{
		`resource_monitors: [{name: a, typed_config: {` + monitorHead + `cgroup_memory.v3.CgroupMemoryConfig}}]`:                                                            `resource_monitors[0].typed_config: `,
		`resource_monitors: [{name: a, typed_config: {` + monitorHead + `fixed_heap.v3.FixedHeapConfig}}]`:                                                                  `resource_monitors[0].typed_config.max_heap_size_bytes: `,
		heap + `, actions: [{name: envoy.overload_actions.reset_high_memory_stream, triggers: [{name: heap, threshold: {value: 1}}]}]`:                                      `actions[0].name: unsupported action`,
		heap + `, actions: [{name: envoy.overload_actions.stop_accepting_requests, triggers: [{name: b, threshold: {value: 1}}]}]`:                                          `actions[0].triggers[0].name: is no resource monitor's`,
		heap + `, actions: [{name: envoy.overload_actions.stop_accepting_requests, triggers: [{name: heap, scaled: {scaling_threshold: 0.9, saturation_threshold: 0.9}}]}]`: `actions[0].triggers[0].scaled: `,
		heap + `, actions: [{name: envoy.overload_actions.reduce_timeouts, triggers: [{name: heap, threshold: {value: 1}}]}]`:                                               `actions[0].typed_config: is missing`,
		heap + `, refresh_interval: 0.001s`: `refresh_interval: must be at least 10ms`,
		heap + `, loadshed_points: [{name: a, triggers: [{name: heap, threshold: {value: 1}}]}]`:                                       `loadshed_points[0].name: unsupported load-shed point "a"`,
		heap + `, loadshed_points: [{name: envoy.load_shed_points.tcp_listener_accept, triggers: [{name: b, threshold: {value: 1}}]}]`: `loadshed_points[0].triggers[0].name: is no resource monitor's`,
		heap + `, loadshed_points: [` + point + `, ` + point + `]`:                                                                     `loadshed_points[1].name: is that of another point`,
	} {
		_, err := decode.Bootstrap([]byte("overload_manager: {"+text+"}"), "b.yaml", testFilters())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}
