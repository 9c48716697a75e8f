// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"slices"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestAnotherBootstrapReplacesStaticResourcesAndNothingElse(t *testing.T) {
	parse := func(text string) *decode.BootstrapConfig {
		t.Helper()
		b, err := decode.Bootstrap([]byte(text), "test", testFilters())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const head, other = "node: {id: a, cluster: a}\n", "node: {id: b, cluster: a}\nadmin: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}\n"
	cluster := func(name, timeout string) string {
		return "  - {name: " + name + ", type: STATIC, connect_timeout: " + timeout + "}\n"
	}
	const statics = "static_resources:\n  clusters:\n"
	c := start(t, head+statics+cluster("same", "1s")+cluster("changes", "1s")+cluster("goes", "1s"), settings{})
	c.wait(t, "the first", func(s *resource.Snapshot) bool { return len(s.Clusters) == 3 })
	same := c.snapshots()[0].Clusters["same"]
	c.client.Provide(&resource.Secret{Name: resource.IdentitySecret, Certificate: &resource.TLSCertificate{}})
	c.wait(t, "its own secret", func(s *resource.Snapshot) bool { return s.Secrets[resource.IdentitySecret] != nil })
	r := c.client.Reload(parse(other + statics + cluster("same", "1s") + cluster("changes", "2s") + cluster("comes", "1s")))
	if r.Added != 1 || r.Changed != 1 || r.Removed != 1 || !slices.Equal(r.Fixed, []string{"node", "admin"}) {
		t.Errorf("%+v", r)
	}
	c.wait(t, "the second", func(s *resource.Snapshot) bool {
		return s.Clusters["comes"] != nil && s.Clusters["goes"] == nil && s.Clusters["changes"].ConnectTimeout.Seconds() == 2 &&
			s.Clusters["same"] == same && s.Secrets[resource.IdentitySecret] != nil
	})
	if r := c.client.Reload(parse(other + statics + cluster("same", "1s") + cluster("changes", "2s") + cluster("comes", "1s"))); r.Added+r.Changed+r.Removed != 0 {
		t.Errorf("nothing has changed since: %+v", r)
	}
}
