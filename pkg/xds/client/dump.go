// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"sort"
	"strings"

	udpaannotations "github.com/cncf/xds/go/udpa/annotations"
	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// Dump returns Envoy's admin ConfigDump as JSON: the configuration as received,
// with versions, and the reasons of what was refused. Endpoints are left out
// unless asked for, as Envoy does. Secrets are redacted. It may be called by any
// goroutine, but not from Publish.
func (c *Client) Dump(includeEDS bool) ([]byte, error) {
	d := c.dumper()
	var boot bootstrapv3.Bootstrap
	if err := proto.Unmarshal(c.cfg.Bootstrap.Raw, &boot); err != nil {
		return nil, fmt.Errorf("dump bootstrap: %w", err)
	}
	if boot.Node == nil {
		boot.Node = c.node
	}
	parts := []proto.Message{
		&adminv3.BootstrapConfigDump{Bootstrap: &boot, LastUpdated: timestamppb.New(c.bootTime)},
		d.clusters(&boot), d.listeners(&boot), d.scopedRoutes(), d.routes(), d.extensions(), c.secrets(),
	}
	if includeEDS {
		parts = append(parts, d.endpoints())
	}
	var out adminv3.ConfigDump
	for _, m := range parts {
		redact(m.ProtoReflect())
		a, err := anypb.New(m)
		if err != nil {
			return nil, fmt.Errorf("dump: %w", err)
		}
		out.Configs = append(out.Configs, a)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true, Indent: " "}.Marshal(&out)
	if err != nil {
		return nil, fmt.Errorf("dump: %w", err)
	}
	return text, nil
}

// dumper holds what a dump is made of; entries do not change, so that it can
// work without the lock.
type dumper struct {
	latest, active [decode.KindCount][]*entry
	inUse          [decode.KindCount]map[string]*entry
	bad            [decode.KindCount]map[string]rejected
	versions       map[string]string
	asked          []Asked
	found          []*adminv3.EndpointsConfigDump_StaticEndpointConfig // by DNS
}

func (c *Client) dumper() *dumper {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &dumper{versions: c.versions(), asked: c.cfg.Asked}
	for k := range d.latest {
		d.latest[k], d.active[k] = byName(c.store.latest[k]), byName(c.asm.active[k])
		d.inUse[k], d.bad[k] = map[string]*entry{}, map[string]rejected{}
		for _, e := range d.active[k] {
			d.inUse[k][e.name] = e
		}
		for name, r := range c.store.bad[k] {
			d.bad[k][name] = r
		}
	}
	d.found = foundByDNS(c.asm.active[decode.Endpoints])
	return d
}

// byName lists the entries that came from a source, in order.
func byName(m map[string]*entry) []*entry {
	out := make([]*entry, 0, len(m))
	for _, e := range m {
		if !e.static && e.bytes != nil {
			out = append(out, e)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out
}

// asAny is the resource as received, if it can be shown.
func (e *entry) asAny() *anypb.Any {
	a := &anypb.Any{TypeUrl: decode.TypeOf(e.kind).URL, Value: e.bytes}
	m, err := a.UnmarshalNew()
	if err == nil {
		redact(m.ProtoReflect())
		if out, err := anypb.New(m); err == nil {
			// It may hold types that this program does not know.
			if _, err := protojson.Marshal(out); err == nil {
				return out
			}
		}
	}
	out, _ := anypb.New(wrapperspb.String("holds types that cannot be shown: " + e.name))
	return out
}

func static(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		return nil
	}
	return a
}

// failure is the error state of a name.
func (d *dumper) failure(kind decode.Kind, name string) *adminv3.UpdateFailureState {
	r, ok := d.bad[kind][name]
	if !ok {
		return nil
	}
	return &adminv3.UpdateFailureState{LastUpdateAttempt: timestamppb.New(r.at), Details: strings.ToValidUTF8(r.reason, "?"), VersionInfo: r.version}
}

// failedOnly lists names that were refused and have no accepted version.
func (d *dumper) failedOnly(kind decode.Kind) []string {
	have := map[string]bool{}
	for _, e := range d.latest[kind] {
		have[e.name] = true
	}
	var out []string
	for name := range d.bad[kind] {
		if !have[name] && name != "" {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}

// clientStatus is the state of an entry as xDS names it.
func (d *dumper) clientStatus(kind decode.Kind, name string) adminv3.ClientResourceStatus {
	if _, bad := d.bad[kind][name]; bad {
		return adminv3.ClientResourceStatus_NACKED
	}
	return adminv3.ClientResourceStatus_ACKED
}

func (d *dumper) clusters(boot *bootstrapv3.Bootstrap) proto.Message {
	m := &adminv3.ClustersConfigDump{VersionInfo: d.versions["cds"]}
	for _, c := range boot.GetStaticResources().GetClusters() {
		m.StaticClusters = append(m.StaticClusters, &adminv3.ClustersConfigDump_StaticCluster{Cluster: static(c)})
	}
	dynamic := func(e *entry) *adminv3.ClustersConfigDump_DynamicCluster {
		return &adminv3.ClustersConfigDump_DynamicCluster{
			VersionInfo: e.version, Cluster: e.asAny(), LastUpdated: timestamppb.New(e.updated),
			ErrorState: d.failure(decode.Cluster, e.name), ClientStatus: d.clientStatus(decode.Cluster, e.name),
		}
	}
	for _, e := range d.active[decode.Cluster] {
		m.DynamicActiveClusters = append(m.DynamicActiveClusters, dynamic(e))
	}
	for _, e := range d.latest[decode.Cluster] {
		if in := d.inUse[decode.Cluster][e.name]; in == nil || in.res != e.res {
			m.DynamicWarmingClusters = append(m.DynamicWarmingClusters, dynamic(e))
		}
	}
	for _, name := range d.failedOnly(decode.Cluster) {
		m.DynamicWarmingClusters = append(m.DynamicWarmingClusters, &adminv3.ClustersConfigDump_DynamicCluster{
			ErrorState: d.failure(decode.Cluster, name), ClientStatus: adminv3.ClientResourceStatus_NACKED,
		})
	}
	return m
}

func (d *dumper) listeners(boot *bootstrapv3.Bootstrap) proto.Message {
	m := &adminv3.ListenersConfigDump{VersionInfo: d.versions["lds"]}
	for _, l := range boot.GetStaticResources().GetListeners() {
		m.StaticListeners = append(m.StaticListeners, &adminv3.ListenersConfigDump_StaticListener{Listener: static(l)})
	}
	state := func(e *entry) *adminv3.ListenersConfigDump_DynamicListenerState {
		return &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: e.version, Listener: e.asAny(), LastUpdated: timestamppb.New(e.updated)}
	}
	by := map[string]*adminv3.ListenersConfigDump_DynamicListener{}
	get := func(name string) *adminv3.ListenersConfigDump_DynamicListener {
		if by[name] == nil {
			by[name] = &adminv3.ListenersConfigDump_DynamicListener{
				Name: name, ErrorState: d.failure(decode.Listener, name), ClientStatus: d.clientStatus(decode.Listener, name),
			}
			m.DynamicListeners = append(m.DynamicListeners, by[name])
		}
		return by[name]
	}
	for _, e := range d.active[decode.Listener] {
		get(e.name).ActiveState = state(e)
	}
	for _, e := range d.latest[decode.Listener] {
		if in := d.inUse[decode.Listener][e.name]; in == nil || in.res != e.res {
			get(e.name).WarmingState = state(e)
		}
	}
	for _, name := range d.failedOnly(decode.Listener) {
		get(name)
	}
	showAsked(m, d.asked)
	return m
}

func (d *dumper) routes() proto.Message {
	m := &adminv3.RoutesConfigDump{}
	for _, e := range d.active[decode.Route] {
		m.DynamicRouteConfigs = append(m.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
			VersionInfo: e.version, RouteConfig: e.asAny(), LastUpdated: timestamppb.New(e.updated),
			ErrorState: d.failure(decode.Route, e.name), ClientStatus: d.clientStatus(decode.Route, e.name),
		})
	}
	for _, name := range d.failedOnly(decode.Route) {
		m.DynamicRouteConfigs = append(m.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
			ErrorState: d.failure(decode.Route, name), ClientStatus: adminv3.ClientResourceStatus_NACKED,
		})
	}
	return m
}

func (d *dumper) extensions() proto.Message {
	m := &adminv3.EcdsConfigDump{}
	for _, e := range d.active[decode.Extension] {
		m.EcdsFilters = append(m.EcdsFilters, &adminv3.EcdsConfigDump_EcdsFilterConfig{
			VersionInfo: e.version, EcdsFilter: e.asAny(), LastUpdated: timestamppb.New(e.updated),
			ErrorState: d.failure(decode.Extension, e.name), ClientStatus: d.clientStatus(decode.Extension, e.name),
		})
	}
	for _, name := range d.failedOnly(decode.Extension) {
		m.EcdsFilters = append(m.EcdsFilters, &adminv3.EcdsConfigDump_EcdsFilterConfig{
			ErrorState: d.failure(decode.Extension, name), ClientStatus: adminv3.ClientResourceStatus_NACKED,
		})
	}
	return m
}

func (d *dumper) scopedRoutes() proto.Message {
	m := &adminv3.ScopedRoutesConfigDump{}
	if len(d.active[decode.ScopedRoute]) == 0 {
		return m
	}
	s := &adminv3.ScopedRoutesConfigDump_DynamicScopedRouteConfigs{VersionInfo: d.versions["srds"]}
	for _, e := range d.active[decode.ScopedRoute] {
		s.ScopedRouteConfigs = append(s.ScopedRouteConfigs, e.asAny())
	}
	m.DynamicScopedRouteConfigs = append(m.DynamicScopedRouteConfigs, s)
	return m
}

func (d *dumper) endpoints() proto.Message {
	m := &adminv3.EndpointsConfigDump{StaticEndpointConfigs: d.found}
	for _, e := range d.active[decode.Endpoints] {
		m.DynamicEndpointConfigs = append(m.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{
			VersionInfo: e.version, EndpointConfig: e.asAny(), LastUpdated: timestamppb.New(e.updated),
			ErrorState: d.failure(decode.Endpoints, e.name), ClientStatus: d.clientStatus(decode.Endpoints, e.name),
		})
	}
	return m
}

const redacted = "[redacted]"

// redact replaces what the API marks as sensitive, and the metadata that goes
// with the proxy's own gRPC calls, which may hold tokens.
func redact(m protoreflect.Message) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			return
		}
		redact(inner.ProtoReflect())
		if out, err := anypb.New(inner); err == nil {
			a.Value = out.Value
		}
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		sensitive, _ := proto.GetExtension(f.Options(), udpaannotations.E_Sensitive).(bool)
		switch {
		case f.FullName() == "envoy.config.core.v3.GrpcService.initial_metadata":
			for i, l := 0, v.List(); i < l.Len(); i++ {
				h := l.Get(i).Message()
				h.Set(h.Descriptor().Fields().ByName("value"), protoreflect.ValueOfString(redacted))
			}
		case sensitive && f.Kind() == protoreflect.StringKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfString(redacted))
		case sensitive:
			m.Clear(f)
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, e protoreflect.Value) bool { redact(e.Message()); return true })
			}
		case f.Message() == nil:
		case f.IsList():
			for i, l := 0, v.List(); i < l.Len(); i++ {
				redact(l.Get(i).Message())
			}
		default:
			redact(v.Message())
		}
		return true
	})
}
