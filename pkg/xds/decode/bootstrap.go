// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// BootstrapConfig is a decoded Envoy v3 bootstrap.
type BootstrapConfig struct {
	File string // as given
	Node Node

	// Listeners and Clusters are static_resources, in order.
	Listeners []*Resource
	Clusters  []*Resource
	Secrets   []*Resource

	// ADS is nil without ads_config. Its Kind is SourceGRPC or SourceDelta.
	ADS *Source
	// LDS and CDS are nil where there are only static ones.
	LDS, CDS *Source

	Runtime    []RuntimeLayer // in order: a later layer wins
	Admin      *Admin
	StatsFlush time.Duration      // default 5 s
	Overload   *resource.Overload // nil: it says nothing
	// LocalCluster is the static cluster of proxies as this one, for routing by zone;
	// "": none.
	LocalCluster string
	// EjectionLog is the file for events of outlier detection; "": none.
	EjectionLog string

	// Raw is the bootstrap as a protobuf message, for config dumps.
	Raw []byte
}

// Node says who this proxy is.
type Node struct {
	ID, Cluster           string
	Region, Zone, SubZone string
	Metadata              map[string]any // as JSON values
}

// RuntimeLayer is one layer; exactly one of Static, RTDS and Admin says where
// its values come from.
type RuntimeLayer struct {
	Name   string
	Static *resource.Runtime
	RTDS   string // resource name
	Source Source
	Admin  bool
}

// Admin is the admin listener.
type Admin struct {
	Address   resource.Address
	AccessLog []*resource.AccessLog
}

// FileError is everything that is wrong with a configuration file.
type FileError struct {
	File   string
	Fields []FieldError
}

// Error has a line for each error: "file:line: path: reason".
func (e *FileError) Error() string {
	var b strings.Builder
	for i, f := range e.Fields {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
		b.WriteString(f.String())
	}
	return b.String()
}

// fileError sorts and places the errors of a file.
func fileError(file string, l *lines, fields []FieldError) *FileError {
	for i := range fields {
		if fields[i].Line == 0 && l != nil {
			fields[i].Line = l.find(fields[i].Path)
		}
	}
	sort.SliceStable(fields, func(a, b int) bool { return fields[a].Line < fields[b].Line })
	return &FileError{File: file, Fields: fields}
}

// Bootstrap decodes a bootstrap in YAML or JSON. The error is a *FileError with
// everything that is wrong.
func Bootstrap(data []byte, file string, reg *filter.Registry) (*BootstrapConfig, error) {
	if b := quickBootstrap(data, file, reg); b != nil {
		return b, nil
	}
	return placedBootstrap(data, file, reg)
}

// placedBootstrap decodes a bootstrap and knows where everything stands in it.
func placedBootstrap(data []byte, file string, reg *filter.Registry) (*BootstrapConfig, error) {
	var m bootstrapv3.Bootstrap
	l, bad := load(data, &m)
	if bad != nil {
		return nil, fileError(file, l, bad)
	}
	j := NewDecoder(reg).job(0, "")
	b := &BootstrapConfig{File: file}
	j.check(&m, nil)
	j.bootstrap(&m, slices.All(m.GetStaticResources().GetClusters()), b)
	if len(j.fields) > 0 {
		return nil, fileError(file, l, j.fields)
	}
	raw, err := proto.Marshal(&m)
	if err != nil {
		return nil, fileError(file, l, []FieldError{{Reason: cleanError(err)}})
	}
	b.Raw = raw
	return b, nil
}

func (j *job) bootstrap(m *bootstrapv3.Bootstrap, clusters iter.Seq2[int, *clusterv3.Cluster], b *BootstrapConfig) {
	var root *place
	b.Node = node3(m.GetNode())
	b.StatsFlush = j.duration(m.GetStatsFlushInterval(), 5*time.Second, root.field("stats_flush_interval"))
	j.statics(m.GetStaticResources(), clusters, b, root.field("static_resources"))
	j.dynamics(m.GetDynamicResources(), b, root.field("dynamic_resources"))
	j.layers(m.GetLayeredRuntime(), b, root.field("layered_runtime"))
	j.admin(m.GetAdmin(), b, root.field("admin"))
	b.Overload = j.overload(m.GetOverloadManager(), root.field("overload_manager"))
	j.localCluster(m, b, root.field("cluster_manager"))
	j.ejectionLog(m, b, root.field("cluster_manager").field("outlier_detection").field("event_log_path"))
	j.references(b)
}

func node3(n *corev3.Node) Node {
	out := Node{
		ID: n.GetId(), Cluster: n.GetCluster(),
		Region: n.GetLocality().GetRegion(), Zone: n.GetLocality().GetZone(), SubZone: n.GetLocality().GetSubZone(),
	}
	if n.GetMetadata() != nil {
		out.Metadata = n.GetMetadata().AsMap()
	}
	return out
}

// part decodes a resource inside the bootstrap and takes over its errors.
func (j *job) part(kind Kind, name string, p *place, decode func(*job) any) Resource {
	inner := &job{Decoder: j.Decoder, kind: kind, name: name}
	v := decode(inner)
	for _, f := range inner.fields {
		j.keep(f)
	}
	return Resource{Kind: kind, Name: j.intern(name), Value: v, Refs: inner.refs}
}

func (j *job) statics(m *bootstrapv3.Bootstrap_StaticResources, clusters iter.Seq2[int, *clusterv3.Cluster], b *BootstrapConfig, p *place) {
	seen := map[string]bool{}
	var room []Resource // statics stay for good: they may share allocations
	for i, c := range clusters {
		at := p.item("clusters", i)
		r := j.part(Cluster, c.GetName(), at, func(in *job) any { return in.cluster(c, at) })
		if seen[r.Name] {
			j.fail(at.field("name"), "%q is used twice", r.Name)
		}
		seen[r.Name] = true
		if len(room) == cap(room) {
			room = make([]Resource, 0, 32)
		}
		room = append(room, r)
		b.Clusters = append(b.Clusters, &room[len(room)-1])
	}
	seen = map[string]bool{}
	for i, l := range m.GetListeners() {
		at := p.item("listeners", i)
		if l.GetName() == "" {
			j.fail(at.field("name"), "is empty")
		}
		r := j.part(Listener, l.GetName(), at, func(in *job) any { return in.listener(l, at) })
		if seen[r.Name] {
			j.fail(at.field("name"), "%q is used twice", r.Name)
		}
		seen[r.Name] = true
		b.Listeners = append(b.Listeners, &r)
	}
	seen = map[string]bool{}
	for i, s := range m.GetSecrets() {
		at := p.item("secrets", i)
		r := j.part(Secret, s.GetName(), at, func(in *job) any { return in.secret(s, at) })
		j.only(r.Name == "" || seen[r.Name], at.field("name"), "is empty or used twice")
		seen[r.Name] = true
		b.Secrets = append(b.Secrets, &r)
	}
}

func (j *job) dynamics(m *bootstrapv3.Bootstrap_DynamicResources, b *BootstrapConfig, p *place) {
	if m.GetAdsConfig() != nil {
		at := p.field("ads_config")
		s := Source{InitialFetchTimeout: defaultInitialFetch}
		j.apiSource(m.GetAdsConfig(), &s, at)
		if s.Kind != SourceGRPC && s.Kind != SourceDelta {
			j.fail(at.field("api_type"), "must be GRPC or DELTA_GRPC")
		}
		b.ADS = &s
	}
	if m.GetLdsConfig() != nil {
		s := j.source(m.GetLdsConfig(), p.field("lds_config"))
		b.LDS = &s
		j.only(s.Kind == SourceSelf, p.field("lds_config").field("self"), "has nothing to refer to")
	}
	if m.GetCdsConfig() != nil {
		s := j.source(m.GetCdsConfig(), p.field("cds_config"))
		b.CDS = &s
		j.only(s.Kind == SourceSelf, p.field("cds_config").field("self"), "has nothing to refer to")
	}
}

func (j *job) layers(m *bootstrapv3.LayeredRuntime, b *BootstrapConfig, p *place) {
	seen := map[string]bool{}
	for i, l := range m.GetLayers() {
		at := p.item("layers", i)
		out := RuntimeLayer{Name: l.GetName()}
		if seen[out.Name] {
			j.fail(at.field("name"), "%q is used twice", out.Name)
		}
		seen[out.Name] = true
		switch v := l.GetLayerSpecifier().(type) {
		case *bootstrapv3.RuntimeLayer_StaticLayer:
			out.Static = j.layer(v.StaticLayer, at.field("static_layer"))
		case *bootstrapv3.RuntimeLayer_AdminLayer_:
			out.Admin = true
		case *bootstrapv3.RuntimeLayer_RtdsLayer_:
			out.RTDS = v.RtdsLayer.GetName()
			if out.RTDS == "" {
				out.RTDS = out.Name
			}
			out.Source = j.source(v.RtdsLayer.GetRtdsConfig(), at.field("rtds_layer").field("rtds_config"))
		case *bootstrapv3.RuntimeLayer_DiskLayer_:
			j.fail(at.field("disk_layer"), notSupported)
		default:
			j.fail(at, "has no layer")
		}
		b.Runtime = append(b.Runtime, out)
	}
}

//nolint:staticcheck // access_log_path is deprecated and still in use
func (j *job) admin(m *bootstrapv3.Admin, b *BootstrapConfig, p *place) {
	if m == nil {
		return
	}
	a := &Admin{AccessLog: j.accessLogs(m.GetAccessLog(), p, "access_log")}
	if m.GetAddress() != nil {
		a.Address = j.address(m.GetAddress(), p.field("address"))
	}
	if path := m.GetAccessLogPath(); path != "" {
		a.AccessLog = append(a.AccessLog, &resource.AccessLog{File: &resource.FileLog{Path: path}})
	}
	b.Admin = a
}

// references checks what static resources and sources refer to.
func (j *job) references(b *BootstrapConfig) {
	static := map[string]bool{}
	for _, c := range b.Clusters {
		static[c.Name] = true
	}
	var root *place
	dyn := root.field("dynamic_resources")
	check := func(s *Source, p *place) {
		switch {
		case s == nil:
		case s.Kind == SourceADS && b.ADS == nil:
			j.fail(p, "is ads, and there is no dynamic_resources.ads_config")
		case s.Service.Cluster != "" && !static[s.Service.Cluster]:
			j.fail(p, "names cluster %q, which is not among static_resources.clusters", clip(s.Service.Cluster, 100))
		}
	}
	check(b.ADS, dyn.field("ads_config"))
	check(b.LDS, dyn.field("lds_config"))
	check(b.CDS, dyn.field("cds_config"))
	for i := range b.Runtime {
		if b.Runtime[i].RTDS != "" {
			check(&b.Runtime[i].Source, root.field("layered_runtime").item("layers", i).field("rtds_layer").field("rtds_config"))
		}
	}
	for name, list := range map[string][]*Resource{"clusters": b.Clusters, "listeners": b.Listeners} {
		for i, r := range list {
			at := root.field("static_resources").item(name, i)
			for n := range r.Refs {
				ref := &r.Refs[n]
				check(&ref.Source, at)
				if ref.Kind == Cluster && b.CDS == nil && !static[ref.Name] {
					j.fail(at, "refers to cluster %q, which is not among static_resources.clusters", clip(ref.Name, 100))
				}
			}
		}
	}
}
