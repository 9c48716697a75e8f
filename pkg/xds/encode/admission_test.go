// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"testing"

	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// X-Forwarded-For is the caller's to write: a limit by address that went by it would
// hold nobody back.
func TestALimitByAddressGoesByTheConnection(t *testing.T) {
	f, err := rateLimit(&mesh.RateLimit{Requests: 5, By: &mesh.RateLimitBy{SourceIP: true}})
	if err != nil {
		t.Fatal(err)
	}
	l := new(localratelimitv3.LocalRateLimit)
	if err := f.GetTypedConfig().UnmarshalTo(l); err != nil {
		t.Fatal(err)
	}
	g := l.GetRateLimits()[0].GetActions()[0].GetGenericKey()
	if g.GetDescriptorValue() != "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%" {
		t.Errorf("the descriptor's value comes of %v", l.GetRateLimits())
	}
	if e := l.GetDescriptors()[0].GetEntries(); len(e) != 1 || e[0].GetKey() != g.GetDescriptorKey() || e[0].GetValue() != "" {
		t.Errorf("the descriptor %v is not that of %v", e, g)
	}
}
