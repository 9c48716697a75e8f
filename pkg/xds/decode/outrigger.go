// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"bytes"
	"encoding/json"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// ownMetadata is the key of filter metadata that holds what Envoy's API has no
// field for: circuit breaker, fallback, and which requests go on by HTTP/2.
const ownMetadata = "io.outrigger"

// http2Calls is the one value of http2, of clusters and of endpoints.
const (
	http2Calls     = "calls"
	wantHTTP2Calls = "want calls, or nothing"
)

type ownSettings struct {
	CircuitBreaker *breakerSettings  `json:"circuitBreaker"`
	Fallback       *fallbackSettings `json:"fallback"`
	Outlier        *outlierSettings  `json:"outlierDetection"`
	HTTP2          string            `json:"http2"`
	// of listeners
	Detection *detectionSettings `json:"protocolDetection"`
	// of filter chains
	DestinationNames []string        `json:"destinationNames"`
	Tap              json.RawMessage `json:"tap"` // as the HTTP filter's configuration
}

type detectionSettings struct {
	WaitMS   *int `json:"waitMs"`
	ExpiryMS *int `json:"expiryMs"`
}

// outrigger reads a cluster's own settings; without any there is no breaker.
func (j *job) outrigger(m *corev3.Metadata, c *resource.Cluster, p *place) {
	s := j.own(m, p)
	if s == nil {
		return
	}
	j.only(s.Detection != nil, p.field("protocolDetection"), "is for listeners only")
	j.onlyChains(s, p)
	if s.HTTP2 != "" {
		j.only(s.HTTP2 != http2Calls, p.field("http2"), wantHTTP2Calls)
		j.only(!c.DownstreamProtocol, p.field("http2"), "is for clusters with use_downstream_protocol_config")
		c.HTTP2Calls = true
	}
	j.ownOutlier(s.Outlier, c, p.field("outlierDetection"))
	c.Breaker = j.breaker(s.CircuitBreaker, p.field("circuitBreaker"))
	// Attempts go by the settings of the member that they choose.
	j.only(s.Fallback != nil && c.Type == resource.Aggregate, p.field("fallback"), "must not be set where the cluster is an aggregate: its members, or the route, have their own")
	c.Fallback = j.fallback(s.Fallback, c.Name, p.field("fallback"))
}

// onlyChains refuses what only filter chains have.
func (j *job) onlyChains(s *ownSettings, p *place) {
	j.only(s.DestinationNames != nil, p.field("destinationNames"), "is for filter chains only")
	j.only(s.Tap != nil, p.field("tap"), "is for filter chains only")
}

// own reads the io.outrigger metadata, nil where there is none.
func (j *job) own(m *corev3.Metadata, p *place) *ownSettings {
	raw := m.GetFilterMetadata()[ownMetadata]
	if raw == nil {
		return nil
	}
	text, err := raw.MarshalJSON()
	if err != nil {
		j.fail(p, "%s", cleanError(err))
		return nil
	}
	var s ownSettings
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		j.fail(p, "%s", clip(err.Error(), 300))
		return nil
	}
	return &s
}

func (j *job) number(v *int, def, lo, hi int, p *place) int {
	if v == nil {
		return def
	}
	if *v < lo || *v > hi {
		j.fail(p, "must be between %d and %d, is %d", lo, hi, *v)
		return def
	}
	return *v
}
