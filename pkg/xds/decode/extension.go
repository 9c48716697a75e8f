// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// extension reads the configuration of an HTTP filter that comes by itself (ECDS).
func (j *job) extension(m *corev3.TypedExtensionConfig, p *place) *resource.ExtensionConfig {
	if m.GetTypedConfig() == nil {
		j.fail(p.field("typed_config"), "is missing")
		return nil
	}
	return j.extensionConfig(j.intern(m.GetName()), m.GetTypedConfig(), p.field("typed_config"))
}

func (j *job) extensionConfig(name string, a *anypb.Any, p *place) *resource.ExtensionConfig {
	cfg, ok := j.filterConfig(a, false, false, p)
	if !ok {
		return nil
	}
	url := filterURL(j, a)
	j.only(url == routerURL, p, "the router is not discovered")
	if s := j.filters.Lookup(url); s != nil {
		j.only(s.RouteOnly, p, "is for typed_per_filter_config only")
	}
	return &resource.ExtensionConfig{Name: name, TypeURL: url, Config: cfg}
}

// discovered reads a filter whose configuration comes by ECDS, under the filter's name.
func (j *job) discovered(f *hcmv3.HttpFilter, p *place) resource.HTTPFilter {
	m, at := f.GetConfigDiscovery(), p.field("config_discovery")
	d := &resource.FilterDiscovery{}
	for i, name := range m.GetTypeUrls() {
		url := name
		if len(url) < len(typeURLPrefix) || url[:len(typeURLPrefix)] != typeURLPrefix {
			url = typeURLPrefix + url // Envoy takes the message's name alone, too
		}
		switch {
		case url == routerURL:
			j.fail(at.item("type_urls", i), "the router is not discovered")
		case j.filters.Lookup(url) == nil:
			j.fail(at.item("type_urls", i), "unknown HTTP filter type %q", clip(name, 200))
		}
		d.TypeURLs = append(d.TypeURLs, j.intern(url))
	}
	j.only(len(d.TypeURLs) == 0, at.field("type_urls"), "is empty")
	src := j.source(m.GetConfigSource(), at.field("config_source"))
	if m.GetDefaultConfig() != nil {
		d.Default = j.extensionConfig(j.intern(f.GetName()), m.GetDefaultConfig(), at.field("default_config"))
		if d.Default != nil && !slices.Contains(d.TypeURLs, d.Default.TypeURL) {
			j.fail(at.field("default_config"), "is a %q, which type_urls do not list", clip(d.Default.TypeURL, 200))
		}
	}
	early := m.GetApplyDefaultConfigWithoutWarming()
	j.only(early && m.GetDefaultConfig() == nil, at.field("apply_default_config_without_warming"), "needs default_config")
	j.need(Extension, f.GetName(), src)
	for i := range j.refs {
		if r := &j.refs[i]; r.Kind == Extension && r.Name == f.GetName() {
			r.NoWait = r.NoWait || early
		}
	}
	return resource.HTTPFilter{Name: j.intern(f.GetName()), Disabled: f.GetDisabled(), Discovery: d}
}
