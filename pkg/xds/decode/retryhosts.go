// SPDX-License-Identifier: Apache-2.0

package decode

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	omithostmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	previousHostsURL      = typeURLPrefix + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
	omitCanaryHostsURL    = typeURLPrefix + "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"
	omitHostMetadataURL   = typeURLPrefix + "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"
	previousPrioritiesURL = typeURLPrefix + "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
	lbMetadata            = "envoy.lb"
)

// retryHosts reads which endpoints retries avoid.
func (j *job) retryHosts(m *routev3.RetryPolicy, r *resource.RetryPolicy, p *place) {
	for i, h := range m.GetRetryHostPredicate() {
		at := p.item("retry_host_predicate", i)
		switch h.GetTypedConfig().GetTypeUrl() {
		case previousHostsURL:
			r.PreviousHosts = true
		case omitCanaryHostsURL:
			r.Avoid.OmitCanaries = true
		case omitHostMetadataURL:
			var cfg omithostmetadatav3.OmitHostMetadataConfig
			if !j.unpack(h.GetTypedConfig(), &cfg, at) {
				continue
			}
			if list := j.omitted(cfg.GetMetadataMatch(), at.field("typed_config").field("metadata_match")); len(list) > 0 {
				r.Avoid.OmitMetadata = append(r.Avoid.OmitMetadata, list)
			}
		default:
			j.fail(at, "unsupported %q", clip(h.GetName(), 100))
		}
	}
}

// omitted are the entries of "envoy.lb"; as in Envoy, others do not matter, and none at
// all leave nothing out.
func (j *job) omitted(m *corev3.Metadata, p *place) map[string]string {
	at := p.entry("filter_metadata", lbMetadata)
	for k, v := range m.GetFilterMetadata()[lbMetadata].GetFields() {
		_, text := v.GetKind().(*structpb.Value_StringValue)
		j.only(!text, at.field(clip(k, 100)), "must be a string")
	}
	return j.metadata(m)[lbMetadata]
}

func (j *job) retryPriority(m *routev3.RetryPolicy_RetryPriority, r *resource.RetryPolicy, p *place) {
	if m == nil {
		return
	}
	var cfg previousprioritiesv3.PreviousPrioritiesConfig
	if m.GetTypedConfig().GetTypeUrl() != previousPrioritiesURL {
		j.fail(p, "unsupported %q", clip(m.GetName(), 100))
		return
	}
	if j.unpack(m.GetTypedConfig(), &cfg, p) {
		r.PreviousPriorities = int(max(0, cfg.GetUpdateFrequency()))
	}
}
