// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// SourceKind says how resources are fetched.
type SourceKind uint8

// The kinds.
const (
	NoSource   SourceKind = iota
	SourceADS             // the aggregated stream
	SourceSelf            // where the resource that refers came from
	SourceGRPC            // a stream of this type alone
	SourceDelta
	SourceREST
	SourcePath
)

// Source is where resources come from (ConfigSource).
type Source struct {
	Kind    SourceKind
	Service Service // SourceGRPC, SourceDelta, SourceREST

	RefreshDelay   time.Duration // SourceREST
	RequestTimeout time.Duration // SourceREST; default 1 s
	Path           string        // SourcePath
	WatchedDir     string        // SourcePath: "" is the path's own folder
	PollInterval   time.Duration // SourcePath: 0 is the default fallback

	// InitialFetchTimeout is how long dependents wait for a first answer; 0: for
	// ever. Default 15 s.
	InitialFetchTimeout time.Duration
}

// Service is a management server.
type Service struct {
	Cluster         string // of the bootstrap (envoy_grpc)
	Authority       string
	Target          string // google_grpc: a gRPC target
	NodeOnFirstOnly bool
	// Metadata goes with each stream; it may hold credentials.
	Metadata []MetadataPair
}

// MetadataPair is one entry of gRPC metadata.
type MetadataPair struct{ Key, Value string }

// Key identifies the transport: sources with equal keys share it.
func (s Source) Key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d|%s|%s|%s|%s|%s", s.Kind, s.Service.Cluster, s.Service.Authority, s.Service.Target, s.Path, s.WatchedDir)
	for _, m := range s.Service.Metadata {
		fmt.Fprintf(&b, "|%s=%s", m.Key, m.Value)
	}
	return b.String()
}

// defaultInitialFetch is Envoy's default of initial_fetch_timeout.
const defaultInitialFetch = 15 * time.Second

// source reads a ConfigSource; nil is an error.
func (j *job) source(c *corev3.ConfigSource, p *place) Source {
	if c == nil {
		j.fail(p, "is missing")
		return Source{}
	}
	j.apiVersion(c.GetResourceApiVersion(), p.field("resource_api_version"))
	s := Source{InitialFetchTimeout: j.duration(c.GetInitialFetchTimeout(), defaultInitialFetch, p.field("initial_fetch_timeout"))}
	switch v := c.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Ads:
		s.Kind = SourceADS
	case *corev3.ConfigSource_Self:
		j.apiVersion(v.Self.GetTransportApiVersion(), p.field("self").field("transport_api_version"))
		s.Kind = SourceSelf
	case *corev3.ConfigSource_Path:
		s.Kind, s.Path = SourcePath, v.Path
	case *corev3.ConfigSource_PathConfigSource:
		s.Kind, s.Path = SourcePath, v.PathConfigSource.GetPath()
		s.WatchedDir = v.PathConfigSource.GetWatchedDirectory().GetPath()
		s.PollInterval = j.duration(v.PathConfigSource.GetPollInterval(), 0, p.field("path_config_source").field("poll_interval"))
	case *corev3.ConfigSource_ApiConfigSource:
		j.apiSource(v.ApiConfigSource, &s, p.field("api_config_source"))
	default:
		j.fail(p, "names no source")
	}
	if s.Kind == SourcePath && s.Path == "" {
		j.fail(p.field("path_config_source").field("path"), "is empty")
	}
	return s
}

func (j *job) apiVersion(v corev3.ApiVersion, p *place) {
	if v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
		j.fail(p, "only V3 is supported, is %s", v)
	}
}

// apiSource reads an ApiConfigSource into s, also the bootstrap's ads_config.
func (j *job) apiSource(a *corev3.ApiConfigSource, s *Source, p *place) {
	j.apiVersion(a.GetTransportApiVersion(), p.field("transport_api_version"))
	s.Service.NodeOnFirstOnly = a.GetSetNodeOnFirstMessageOnly()
	switch a.GetApiType() {
	case corev3.ApiConfigSource_GRPC:
		s.Kind = SourceGRPC
	case corev3.ApiConfigSource_DELTA_GRPC:
		s.Kind = SourceDelta
	case corev3.ApiConfigSource_REST:
		j.restSource(a, s, p)
		return
	case corev3.ApiConfigSource_AGGREGATED_GRPC, corev3.ApiConfigSource_AGGREGATED_DELTA_GRPC:
		s.Kind = SourceADS
		return
	default:
		j.fail(p.field("api_type"), "unsupported %s", a.GetApiType())
		return
	}
	j.only(len(a.GetClusterNames()) > 0, p.field("cluster_names"), "is for REST; gRPC uses grpc_services")
	if n := len(a.GetGrpcServices()); n != 1 {
		j.fail(p.field("grpc_services"), "exactly one is needed, there are %d", n)
		return
	}
	s.Service = j.service(a.GetGrpcServices()[0], p.item("grpc_services", 0))
	j.manager(s.Service.Cluster, p.item("grpc_services", 0).field("envoy_grpc").field("cluster_name"))
	s.Service.NodeOnFirstOnly = a.GetSetNodeOnFirstMessageOnly()
}

func (j *job) restSource(a *corev3.ApiConfigSource, s *Source, p *place) {
	s.Kind = SourceREST
	if len(a.GetClusterNames()) != 1 || a.GetClusterNames()[0] == "" {
		j.fail(p.field("cluster_names"), "exactly one is needed for REST")
		return
	}
	j.only(len(a.GetGrpcServices()) > 0, p.field("grpc_services"), "is for gRPC; REST uses cluster_names")
	s.Service.Cluster = a.GetClusterNames()[0]
	j.manager(s.Service.Cluster, p.item("cluster_names", 0))
	s.RefreshDelay = j.duration(a.GetRefreshDelay(), 0, p.field("refresh_delay"))
	if s.RefreshDelay < 10*time.Millisecond {
		j.fail(p.field("refresh_delay"), "must be at least 10ms")
	}
	s.RequestTimeout = j.duration(a.GetRequestTimeout(), time.Second, p.field("request_timeout"))
}

// manager refuses a management server behind a cluster that the bootstrap lacks.
func (j *job) manager(cluster string, p *place) {
	if cluster != "" && j.managers != nil && !j.managers[cluster] {
		j.fail(p, "cluster %q is not among the bootstrap's static_resources.clusters", clip(cluster, 100))
	}
}

// service reads a GrpcService.
func (j *job) service(g *corev3.GrpcService, p *place) Service {
	var s Service
	switch v := g.GetTargetSpecifier().(type) {
	case *corev3.GrpcService_EnvoyGrpc_:
		s.Cluster, s.Authority = v.EnvoyGrpc.GetClusterName(), v.EnvoyGrpc.GetAuthority()
	case *corev3.GrpcService_GoogleGrpc_:
		s.Target = v.GoogleGrpc.GetTargetUri()
	default:
		j.fail(p, "has neither envoy_grpc nor google_grpc")
	}
	if s.Cluster == "" && s.Target == "" {
		j.fail(p, "names no cluster and no target")
	}
	for i, h := range g.GetInitialMetadata() {
		key := lower(h.GetKey())
		if !validHeaderName(key) || !validHeaderValue(h.GetValue()) {
			j.fail(p.item("initial_metadata", i), "is no valid metadata")
			continue
		}
		s.Metadata = append(s.Metadata, MetadataPair{Key: key, Value: h.GetValue()})
	}
	return s
}
