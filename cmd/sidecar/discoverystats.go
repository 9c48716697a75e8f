// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
)

// discoverySamples are Envoy's statistics of CDS and LDS, over all sources. As there,
// an attempt begins with the subscription and with each response.
func discoverySamples(st *client.Status) (out []metrics.Sample) {
	for _, d := range [...]struct{ kind, prefix, what string }{
		{"cds", "cluster_manager.cds.", "clusters"},
		{"lds", "listener_manager.lds.", "listeners"},
	} {
		var accepted, rejected, attempts, version uint64
		found := false
		for i := range st.Sources {
			for j := range st.Sources[i].Types {
				t := &st.Sources[i].Types[j]
				if t.Type != d.kind {
					continue
				}
				found = true
				accepted, rejected, attempts = accepted+t.Accepted, rejected+t.Rejected, attempts+1+t.Accepted+t.Rejected
				if t.Version != "" {
					version = lb.HashBytes([]byte(t.Version))
				}
			}
		}
		if !found {
			continue
		}
		out = append(out,
			metrics.Sample{Name: d.prefix + "update_attempt", Help: "Times that " + d.what + " were asked for.", Kind: metrics.KindCounter, Value: attempts},
			metrics.Sample{Name: d.prefix + "update_success", Help: "Responses with " + d.what + " that were taken.", Kind: metrics.KindCounter, Value: accepted},
			metrics.Sample{Name: d.prefix + "update_rejected", Help: "Responses with " + d.what + " that were refused (NACK).", Kind: metrics.KindCounter, Value: rejected},
			metrics.Sample{Name: d.prefix + "version", Help: "Hash of the version taken last.", Kind: metrics.KindGauge, Value: version},
		)
	}
	return out
}
