// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	gcptest "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// typedText is a filter's configuration that says one word.
func typedText(t *testing.T, url, word string) *anypb.Any {
	t.Helper()
	return packed(t, &xdstypev3.TypedStruct{TypeUrl: url, Value: &structpb.Struct{Fields: map[string]*structpb.Value{"say": structpb.NewStringValue(word)}}})
}

// discovering is a listener with a filter whose configuration comes by ECDS, from where its
// routes come from.
func discovering(t *testing.T, mode string, d *corev3.ExtensionConfigSource) *listenerv3.Listener {
	t.Helper()
	l := gcptest.MakeRouteHTTPListener(mode, "in", 9000, "route")
	f := l.GetFilterChains()[0].GetFilters()[0]
	var m hcmv3.HttpConnectionManager
	if err := f.GetTypedConfig().UnmarshalTo(&m); err != nil {
		t.Fatal(err)
	}
	d.ConfigSource = m.GetRds().GetConfigSource()
	if d.TypeUrls == nil {
		d.TypeUrls = []string{filterOne}
	}
	m.HttpFilters = append([]*hcmv3.HttpFilter{{Name: "dyn", ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: d}}}, m.HttpFilters...)
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, &m)}
	return l
}

func extensionConfig(t *testing.T, url, word string) *corev3.TypedExtensionConfig {
	t.Helper()
	return &corev3.TypedExtensionConfig{Name: "dyn", TypedConfig: typedText(t, url, word)}
}

func withExtension(t *testing.T, version, mode string, l *listenerv3.Listener, x ...types.Resource) *cachev3.Snapshot {
	t.Helper()
	s, err := cachev3.NewSnapshot(version, map[resourcev3.Type][]types.Resource{
		resourcev3.ClusterType: {cluster(mode, "c")}, resourcev3.EndpointType: {endpoints("c")},
		resourcev3.RouteType: {routes("route", "c")}, resourcev3.ListenerType: {l}, resourcev3.ExtensionConfigType: x,
		resourcev3.RuntimeType: {gcptest.MakeRuntime("runtime-0")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dynamic is the discovered filter of the snapshot's listener, nil where there is no listener.
func dynamic(s *resource.Snapshot) *resource.HTTPFilter {
	l := s.Listeners["in"]
	if l == nil {
		return nil
	}
	return &l.FilterChains[0].HTTP.Filters[0]
}

func says(word string) func(*resource.Snapshot) bool {
	return func(s *resource.Snapshot) bool {
		f := dynamic(s)
		return f != nil && !f.Missing && f.TypeURL == filterOne && strings.Contains(fmt.Sprint(f.Config), `"`+word+`"`)
	}
}

// counted checks the counts of the filter dyn, none of them where want is nil.
func (c *consumer) counted(t *testing.T, want *client.ExtensionStatus) {
	t.Helper()
	got := c.client.Status().Extensions
	if want == nil && len(got) == 0 {
		return
	}
	if want == nil || len(got) != 1 || got[0] != *want {
		t.Errorf("counts: got %+v, want %+v", got, want)
	}
}

func TestFiltersComeByThemselvesInEveryModeOfDelivery(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads"})
			c := start(t, bootstrapFor(t, mode, s), settings{})
			l := discovering(t, mode, &corev3.ExtensionConfigSource{})
			set := func(version string, x ...types.Resource) { s.Set(t, nodeID, withExtension(t, version, mode, l, x...)) }

			set("v1", extensionConfig(t, filterOne, "first"))
			got := c.wait(t, "the filter's first configuration", says("first"))
			for _, before := range c.snapshots() {
				if f := dynamic(before); f != nil && f.Missing {
					t.Error("the listener was in use before its filter")
				}
			}
			set("v2", extensionConfig(t, filterOne, "second"))
			next := c.wait(t, "its second one", says("second"))
			if got.Routes["route"] != next.Routes["route"] || got.Listeners["in"] == next.Listeners["in"] {
				t.Error("want another listener and the same routes")
			}
			for version, bad := range map[string]*corev3.TypedExtensionConfig{
				"v3": extensionConfig(t, filterTwo, "third"), "v4": extensionConfig(t, "type.googleapis.com/test.Three", "third"),
			} {
				set(version, bad)
				want := map[string]string{"v3": "the filter of that name takes", "v4": "unknown HTTP filter type"}[version]
				s.Wait(t, "the refusal of "+version, func(e xdstest.Exchange) bool { return strings.Contains(e.Nack, want) })
			}
			set("v5", extensionConfig(t, filterOne, "fifth"))
			c.wait(t, "what comes after two that were refused", says("fifth"))
			c.counted(t, &client.ExtensionStatus{Name: "dyn", Reloads: 3, Failures: 2})
			for _, s := range c.snapshots() {
				if f := dynamic(s); f != nil && f.TypeURL == filterTwo {
					t.Error("a refused configuration was in use")
				}
			}
			text, err := c.client.Dump(false)
			if err != nil || !strings.Contains(string(text), "EcdsConfigDump") || !strings.Contains(string(text), `"version_info":`) {
				t.Errorf("dump: %v\n%.2000s", err, text)
			}
		})
	}
}

func TestADefaultServesUntilTheFiltersConfigurationComes(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{})
	c := start(t, bootstrapFor(t, "delta", s), settings{})
	l := discovering(t, "delta", &corev3.ExtensionConfigSource{DefaultConfig: typedText(t, filterOne, "default"), ApplyDefaultConfigWithoutWarming: true})
	s.Set(t, nodeID, withExtension(t, "v1", "delta", l))
	c.wait(t, "the default", says("default"))
	s.Set(t, nodeID, withExtension(t, "v2", "delta", l, extensionConfig(t, filterOne, "come")))
	c.wait(t, "what has come", says("come"))
	s.Set(t, nodeID, withExtension(t, "v3", "delta", l))
	last := func(s *resource.Snapshot) bool { return s.Versions["ecds"] == "v3" && says("default")(s) }
	c.wait(t, "the default again, as what had come was removed", last)
	c.counted(t, &client.ExtensionStatus{Name: "dyn", Reloads: 2})
}

func TestAListenerThatTakesAnotherTypeOfFilterIsAConflict(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{})
	c := start(t, bootstrapFor(t, "delta", s), settings{})
	one := discovering(t, "delta", &corev3.ExtensionConfigSource{})
	two := discovering(t, "delta", &corev3.ExtensionConfigSource{TypeUrls: []string{filterTwo}, DefaultConfig: typedText(t, filterTwo, "default")})
	is := func(url, word string) func(*resource.Snapshot) bool {
		return func(s *resource.Snapshot) bool {
			f := dynamic(s)
			return f != nil && f.TypeURL == url && strings.Contains(fmt.Sprint(f.Config), `"`+word+`"`)
		}
	}
	s.Set(t, nodeID, withExtension(t, "v1", "delta", one, extensionConfig(t, filterOne, "first")))
	c.wait(t, "the filter", is(filterOne, "first"))
	s.Set(t, nodeID, withExtension(t, "v2", "delta", two, extensionConfig(t, filterOne, "first")))
	c.wait(t, "the default of the listener that takes another", is(filterTwo, "default"))
	c.counted(t, &client.ExtensionStatus{Name: "dyn", Reloads: 1, Conflicts: 1})
	s.Set(t, nodeID, withExtension(t, "v3", "delta", two, extensionConfig(t, filterTwo, "third")))
	c.wait(t, "what it takes", is(filterTwo, "third"))
	c.counted(t, &client.ExtensionStatus{Name: "dyn", Reloads: 2, Conflicts: 1})
	// The second of two is published after the subscriptions have followed the first.
	for version, port := range map[string]uint32{"v4": 9001, "v5": 9002} {
		s.Set(t, nodeID, withExtension(t, version, "delta", gcptest.MakeRouteHTTPListener("delta", "in", port, "route")))
		c.wait(t, "the listener without it on port "+fmt.Sprint(port), func(s *resource.Snapshot) bool {
			f := dynamic(s)
			return f != nil && f.Discovery == nil && uint32(s.Listeners["in"].Addresses[0].Port) == port
		})
	}
	c.counted(t, nil)
}

func TestAFilterWhoseConfigurationNeverComesRefusesRequests(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{})
	c := start(t, bootstrapFor(t, "xds", s), settings{})
	d := &corev3.ExtensionConfigSource{}
	l := discovering(t, "xds", d)
	f := l.GetFilterChains()[0].GetFilters()[0]
	var m hcmv3.HttpConnectionManager
	if err := f.GetTypedConfig().UnmarshalTo(&m); err != nil {
		t.Fatal(err)
	}
	m.GetHttpFilters()[0].GetConfigDiscovery().GetConfigSource().InitialFetchTimeout = durationpb.New(200 * time.Millisecond)
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, &m)}
	s.Set(t, nodeID, withExtension(t, "v1", "xds", l))
	c.wait(t, "the listener, without its filter", func(s *resource.Snapshot) bool { f := dynamic(s); return f != nil && f.Missing })
	s.Set(t, nodeID, withExtension(t, "v2", "xds", l, extensionConfig(t, filterOne, "late")))
	c.wait(t, "the filter", says("late"))
	c.counted(t, &client.ExtensionStatus{Name: "dyn", Reloads: 1, Failures: 1})
}

func TestFiltersComeFromFiles(t *testing.T) {
	dir := t.TempDir()
	ecds := func(word string) string {
		return `resources:
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: dyn
  typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: ` + filterOne + `, value: {say: ` + word + `}}
`
	}
	replace(t, filepath.Join(dir, "ecds.yaml"), ecds("first"))
	c := start(t, fmt.Sprintf(`
node: {id: test-id, cluster: c}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 9000}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: []}
          http_filters:
          - name: dyn
            config_discovery: {config_source: {path_config_source: {path: %s/ecds.yaml}}, type_urls: [%s]}
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`, dir, filterOne), settings{})
	c.wait(t, "the first configuration", says("first"))
	replace(t, filepath.Join(dir, "ecds.yaml"), ecds("second"))
	c.wait(t, "the second", says("second"))
}
