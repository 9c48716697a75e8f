// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// matching is a cluster whose outlier detection counts what the matcher accepts.
func matching(matcher string) string {
	return `{name: a, ` + eds + `, outlier_detection: {}, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: ` +
		`{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {}}, outlier_detection: {error_matcher: ` + matcher + `}}}}`
}

// status is the matcher of one header.
func status(fields string) string {
	return `{http_response_headers_match: {headers: [{name: ":status", ` + fields + `}]}}`
}

func TestAllOfOutlierDetectionIsRead(t *testing.T) {
	c := must[resource.Cluster](t, decode.Cluster, `{name: a, `+eds+`, outlier_detection: {
  consecutive_5xx: 1, enforcing_consecutive_5xx: 2, consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 4,
  consecutive_local_origin_failure: 5, enforcing_consecutive_local_origin_failure: 6, split_external_local_origin_errors: true,
  success_rate_minimum_hosts: 7, success_rate_request_volume: 8, success_rate_stdev_factor: 900, enforcing_success_rate: 10, enforcing_local_origin_success_rate: 11,
  failure_percentage_threshold: 12, failure_percentage_minimum_hosts: 13, failure_percentage_request_volume: 14, enforcing_failure_percentage: 15, enforcing_failure_percentage_local_origin: 16,
  interval: 17s, base_ejection_time: 18s, max_ejection_time: 19s, max_ejection_percent: 20, max_ejection_time_jitter: 21s, always_eject_one_host: true,
  successful_active_health_check_uneject_host: false},
metadata: {filter_metadata: {io.outrigger: {outlierDetection: {retryAfter: true}}}}}`)
	want := &resource.OutlierDetection{
		Consecutive5xx: 1, Enforcing5xx: 2, ConsecutiveGateway: 3, EnforcingGateway: 4, ConsecutiveLocal: 5, EnforcingLocal: 6, SplitLocal: true,
		SuccessRate: resource.SuccessRate{MinHosts: 7, Volume: 8, Stdev: 0.9, Enforcing: 10, EnforcingLocal: 11},
		Failure:     resource.FailurePercentage{Threshold: 12, MinHosts: 13, Volume: 14, Enforcing: 15, EnforcingLocal: 16},
		Interval:    17 * time.Second, BaseEjection: 18 * time.Second, MaxEjection: 19 * time.Second, MaxEjectionPercent: 20,
		Jitter: 21 * time.Second, AlwaysEjectOne: true, RetryAfter: true,
	}
	if !reflect.DeepEqual(c.Outlier, want) {
		t.Errorf("got  %+v\nwant %+v", c.Outlier, want)
	}
}

func TestWhichStatusesAreErrorsIsRead(t *testing.T) {
	for _, tt := range []struct{ matcher, want string }{
		{status(`range_match: {start: 500, end: 600}`), "[{500 599}]"},
		{status(`exact_match: "429"`), "[{429 429}]"},
		{`{or_match: {rules: [` + status(`string_match: {exact: "429"}`) + `, ` + status(`range_match: {start: 502, end: 505}`) + `]}}`, "[{429 429} {502 504}]"},
	} {
		c := must[resource.Cluster](t, decode.Cluster, matching(tt.matcher))
		if got := fmt.Sprint(c.Outlier.Errors); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.matcher, got, tt.want)
		}
	}
}

func TestWhatOutlierDetectionCannotIsRefusedByName(t *testing.T) {
	detect := func(fields string) string { return `{name: a, ` + eds + `, outlier_detection: {` + fields + `}}` }
	for _, tt := range []struct{ text, want string }{
		{detect(`monitors: [{name: m, typed_config: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions}}]`), "outlier_detection.monitors: not supported"},
		{detect(`detect_degraded_hosts: true`), "outlier_detection.detect_degraded_hosts: not supported"},
		{detect(`base_ejection_time: 10s, max_ejection_time: 9s`), "outlier_detection.max_ejection_time: must not be less"},
		{detect(`enforcing_failure_percentage: 101`), "outlier_detection.enforcing_failure_percentage"},
		{matching(`{any_match: true}`), "any_match: not supported"},
		{matching(`{http_response_headers_match: {headers: [{name: x-error, present_match: true}]}}`), "error_matcher.http_response_headers_match.headers[0]: want the header :status"},
		{matching(status(`exact_match: "5xx"`)), "error_matcher.http_response_headers_match.headers[0]: want the header :status"},
		{matching(status(`exact_match: "500", invert_match: true`)), "error_matcher.http_response_headers_match.headers[0]: want the header :status"},
		{matching(`{or_match: {rules: [{or_match: {rules: [` + status(`exact_match: "500"`) + `, ` + status(`exact_match: "501"`) + `]}}, ` + status(`exact_match: "500"`) + `]}}`), "error_matcher.or_match.rules[0]: want http_response_headers_match"},
		{`{name: a, ` + eds + `, metadata: {filter_metadata: {io.outrigger: {outlierDetection: {retryAfter: true}}}}}`, "outlierDetection: needs the cluster's outlier_detection"},
	} {
		_, err := from(t, decode.Cluster, tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestTheFileForEjectionsIsRead(t *testing.T) {
	const text = "cluster_manager: {outlier_detection: {FIELDS}}\n"
	read := func(fields string) (*decode.BootstrapConfig, error) {
		return decode.Bootstrap([]byte(strings.Replace(text, "FIELDS", fields, 1)), "b.yaml", filter.NewRegistry())
	}
	if b, err := read("event_log_path: /var/log/ejections"); err != nil || b.EjectionLog != "/var/log/ejections" {
		t.Errorf("%+v, %v", b, err)
	}
	for fields, want := range map[string]string{
		`event_log_path: "a\0b"`: "b.yaml:1: cluster_manager.outlier_detection.event_log_path: is no path",
		"event_service: {}":      "b.yaml:1: cluster_manager.outlier_detection.event_service: not supported by this version",
	} {
		if _, err := read(fields); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
}
