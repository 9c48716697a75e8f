// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestClustersOfOriginalDestinationsAreRead(t *testing.T) {
	for _, tc := range []struct {
		more string
		want resource.OriginalDst
	}{
		{"", resource.OriginalDst{Cleanup: 5 * time.Second}},
		{", cleanup_interval: 30s, original_dst_lb_config: {use_http_header: true}", resource.OriginalDst{Cleanup: 30 * time.Second, Header: "x-envoy-original-dst-host"}},
		{", original_dst_lb_config: {use_http_header: true, http_header_name: X-To, upstream_port_override: 8443}", resource.OriginalDst{Cleanup: 5 * time.Second, Header: "x-to", Port: 8443}},
	} {
		c := must[resource.Cluster](t, decode.Cluster, "{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED"+tc.more+"}")
		if c.Type != resource.Original || c.OriginalDst == nil || !reflect.DeepEqual(*c.OriginalDst, tc.want) || c.Static == nil {
			t.Errorf("%s: type %d, %+v, want %+v", tc.more, c.Type, c.OriginalDst, tc.want)
		}
	}
}
