// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"
	"testing"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	dnsclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	healthcheckv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	limitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	filesinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"
	weightedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	overridev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"
	firstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	randomsubsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random_subsetting/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	robinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	wrrv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	injectedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/injected_resource/v3"
	omitcanaryhostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	omithostmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	proxysocketv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// roots are all messages that decode opens: the kinds and what comes in an Any.
func roots() []proto.Message {
	out := []proto.Message{
		&bootstrapv3.Bootstrap{}, &hcmv3.HttpConnectionManager{}, &tcpv3.TcpProxy{}, &limitv3.ConnectionLimit{}, &accesslogv3.AccessLog{},
		&filelogv3.FileAccessLog{}, &streamlogv3.StdoutAccessLog{}, &streamlogv3.StderrAccessLog{},
		&grpclogv3.HttpGrpcAccessLogConfig{}, &grpclogv3.TcpGrpcAccessLogConfig{}, &tracev3.ZipkinConfig{},
		&tracev3.OpenTelemetryConfig{}, &httpv3.HttpProtocolOptions{}, &leastv3.LeastRequest{}, &robinv3.RoundRobin{},
		&randomv3.Random{}, &ringv3.RingHash{}, &maglevv3.Maglev{}, &firstv3.PickFirst{}, &weightedv3.ClientSideWeightedRoundRobin{}, peakEWMAType.New().Interface(), &wrrv3.WrrLocality{}, &subsetv3.Subset{}, &overridev3.OverrideHost{}, &randomsubsetv3.RandomSubsetting{}, &routev3.FilterConfig{},
		&omitcanaryhostsv3.OmitCanaryHostsPredicate{}, &omithostmetadatav3.OmitHostMetadataConfig{},
		&previoushostsv3.PreviousHostsPredicate{}, &previousprioritiesv3.PreviousPrioritiesConfig{},
		&proxyfilterv3.ProxyProtocol{}, &tlsinspectorv3.TlsInspector{}, &httpinspectorv3.HttpInspector{}, &originaldstv3.OriginalDst{},
		&proxysocketv3.ProxyProtocolUpstreamTransport{}, &dnsclusterv3.DnsCluster{}, &aggregatev3.ClusterConfig{}, &caresv3.CaresDnsResolverConfig{},
		&localratelimitv3.LocalRateLimit{}, &netratelimitv3.LocalRateLimit{},
		&healthcheckv3.HealthCheck{},
		&overloadv3.ScaleTimersOverloadActionConfig{}, &fixedheapv3.FixedHeapConfig{}, &connectionsv3.DownstreamConnectionsConfig{}, &injectedv3.InjectedResourceConfig{},
		&faultv3.HTTPFault{}, &localratelimitv3.LocalRateLimit{}, &netratelimitv3.LocalRateLimit{},
		&filesinkv3.HealthCheckEventFileSink{},
		&tlsv3.DownstreamTlsContext{}, &tlsv3.UpstreamTlsContext{}, &tlsv3.SPIFFECertValidatorConfig{},
	}
	for i := range types {
		out = append(out, types[i].message())
	}
	return out
}

func TestTheFieldListsNameRealFieldsAndCoverEveryMessageThatIsRead(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	fields := map[protoreflect.FullName]bool{}
	var walk func(d protoreflect.MessageDescriptor, from string)
	walk = func(d protoreflect.MessageDescriptor, from string) {
		if seen[d.FullName()] || opaque(d) {
			seen[d.FullName()] = true
			return
		}
		seen[d.FullName()] = true
		list, ok := read[d.FullName()]
		if !ok {
			t.Errorf("%s is read from %s and has no list of fields", d.FullName(), from)
			return
		}
		for i := 0; i < d.Fields().Len(); i++ {
			fields[d.Fields().Get(i).FullName()] = true
		}
		for _, name := range strings.Fields(list) {
			f := d.Fields().ByName(protoreflect.Name(name))
			if f == nil {
				t.Errorf("%s has no field %s", d.FullName(), name)
				continue
			}
			if _, both := harmless[f.FullName()]; both {
				t.Errorf("%s is both read and harmless", f.FullName())
			}
			m := f.Message()
			if f.IsMap() {
				m = f.MapValue().Message()
			}
			if m != nil {
				walk(m, string(f.FullName()))
			}
		}
	}
	for _, m := range roots() {
		walk(m.ProtoReflect().Descriptor(), "the top")
	}
	for name := range read {
		if !seen[name] {
			t.Errorf("%s has a list of fields and is read by nothing", name)
		}
	}
	for name, why := range harmless {
		if !fields[name] {
			t.Errorf("%s is no field of a message that is read", name)
		}
		if why == "" {
			t.Errorf("%s has no reason", name)
		}
	}
	for name, why := range wholes {
		if !seen[name] || why == "" {
			t.Errorf("%s is reached by nothing or has no reason", name)
		}
	}
}
