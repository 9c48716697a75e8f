// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestTheConfigDumpCanBeNarrowed(t *testing.T) {
	p := open(t, nil)
	whole, err := os.ReadFile("testdata/dump.json")
	if err != nil {
		t.Fatal(err)
	}
	p.want("GET", "/config_dump", 200, string(whole))
	for _, c := range []struct{ query, want string }{
		{"resource=dynamic_active_clusters&mask=cluster.name", `{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster","cluster":{"name":"orders"}},{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster","cluster":{"name":"payments"}}]}`},
		{"resource=dynamic_active_clusters&name_regex=^pay&mask=version_info", `{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster","version_info":"7"}]}`},
		{"resource=static_listeners", `{"configs":[]}`},
		{"mask=bootstrap.node", `{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.BootstrapConfigDump","bootstrap":{"node":{"id":"n"}}}]}`},
		{"mask=dynamic_listeners.name,version_info", `{"configs":[{"@type":"type.googleapis.com/envoy.admin.v3.ClustersConfigDump","version_info":"7"},{"@type":"type.googleapis.com/envoy.admin.v3.ListenersConfigDump","dynamic_listeners":[{"name":"outbound"}]}]}`},
		{"resource=dynamic_listeners&name_regex=inbound", `{"configs":[]}`},
	} {
		resp, body := p.do("GET", "/config_dump?"+c.query)
		var got strings.Builder
		var v any
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Errorf("%s: %d %s", c.query, resp.StatusCode, body)
			continue
		}
		b, _ := json.Marshal(v)
		got.Write(b)
		if got.String() != c.want {
			t.Errorf("%s: got %s, want %s", c.query, got.String(), c.want)
		}
	}
	for _, c := range []struct {
		query  string
		status int
		reason string
	}{
		{"resource=nosuch", 404, "nosuch not found in config dump\n"},
		{"resource=bootstrap", 404, "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field\n"},
		{"mask=nosuch", 400, "mask \"nosuch\": no such field in what was asked for\n"},
		{"mask=a,,b", 400, "mask \"a,,b\": an empty path\n"},
		{"name_regex=(", 400, "name_regex: error parsing regexp: missing closing ): `(`\n"},
	} {
		p.want("GET", "/config_dump?"+c.query, c.status, c.reason)
	}
}

func TestEndpointsAreInTheDumpWhenAskedFor(t *testing.T) {
	p := open(t, func(c *Config) {
		c.Dump = func(eds bool) ([]byte, error) {
			if eds {
				return []byte(`{"configs":[{"@type":"e","dynamic_endpoint_configs":[{"endpoint_config":{"cluster_name":"orders"}}]}]}`), nil
			}
			return nil, errors.New("not ready")
		}
	})
	p.want("GET", "/config_dump", 503, "config dump: not ready\n")
	for _, q := range []string{"include_eds", "resource=dynamic_endpoint_configs", "include_eds&name_regex=orders"} {
		if resp, body := p.do("GET", "/config_dump?"+q); resp.StatusCode != 200 || !strings.Contains(body, `"orders"`) {
			t.Errorf("%s: %d %s", q, resp.StatusCode, body)
		}
	}
}
