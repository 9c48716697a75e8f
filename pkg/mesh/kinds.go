// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Groups and versions of the configuration language.
const (
	groupOutrigger = "outrigger.io/v1"
	groupGateway   = "gateway.networking.k8s.io/v1"
)

// Names of the kinds.
const (
	KindService       = "Service"
	KindHTTPRoute     = "HTTPRoute"
	KindGRPCRoute     = "GRPCRoute"
	KindTLSRoute      = "TLSRoute"
	KindTCPRoute      = "TCPRoute"
	KindTrafficPolicy = "TrafficPolicy"
	KindTelemetry     = "Telemetry"
	KindTap           = "Tap"
)

// Kind describes one kind of object.
type Kind struct {
	Name       string
	Plural     string   // for the CLI
	Short      []string // further names that the CLI takes
	APIVersion string
	New        func() Object
	About      string
}

// kinds is every kind that this version understands. A new kind is its file and a line here.
var kinds = []Kind{
	{KindService, "services", []string{"svc"}, groupOutrigger, func() Object { return new(Service) }, "A service: its ports, and addresses where no registry lists them."},
	{KindHTTPRoute, "httproutes", []string{"route", "routes"}, groupGateway, func() Object { return new(HTTPRoute) }, "How HTTP requests to a service are matched, changed and split over backends."},
	{KindGRPCRoute, "grpcroutes", nil, groupGateway, func() Object { return new(GRPCRoute) }, "How gRPC calls to a service are matched, changed and split over backends."},
	{KindTLSRoute, "tlsroutes", nil, groupGateway, func() Object { return new(TLSRoute) }, "Where TLS connections to a service go by their server name, without being decrypted."},
	{KindTCPRoute, "tcproutes", nil, groupGateway, func() Object { return new(TCPRoute) }, "How connections to a service are split over backends."},
	{KindTrafficPolicy, "trafficpolicies", []string{"policy", "policies", "tp"}, groupOutrigger, func() Object { return new(TrafficPolicy) }, "Balancing, limits, circuit breaker, outlier ejection, retries, timeouts and fallback of a service."},
	{KindTelemetry, "telemetries", nil, groupOutrigger, func() Object { return new(Telemetry) }, "Trace sampling, propagation and exporters; access logs."},
	{KindTap, "taps", nil, groupOutrigger, func() Object { return new(Tap) }, "Which exchanges or connections are copied to the lake, and how much of them."},
}

// laterKinds are kinds of the configuration language that this version refuses by name.
var laterKinds = []string{
	"AccessPolicy", "Broker", "ConfigSource", "Gateway", "RateLimit", "Subscription",
}

// olderVersions are what the Gateway API called kinds before. They are read as the
// version of today.
var olderVersions = map[string][]string{
	KindTLSRoute: {"gateway.networking.k8s.io/v1alpha2", "gateway.networking.k8s.io/v1alpha3"},
	KindTCPRoute: {"gateway.networking.k8s.io/v1alpha2"},
}

// Kinds lists every kind, in the order in which references between them resolve.
func Kinds() []Kind { return append([]Kind(nil), kinds...) }

// KindNamed finds a kind by its name, plural or short name, in any case.
func KindNamed(name string) (Kind, error) {
	for _, k := range kinds {
		if strings.EqualFold(name, k.Name) || strings.EqualFold(name, k.Plural) || slices.ContainsFunc(k.Short, func(s string) bool { return strings.EqualFold(s, name) }) {
			return k, nil
		}
	}
	for _, l := range laterKinds {
		if strings.EqualFold(name, l) {
			return Kind{}, fmt.Errorf("kind %s is not supported yet", l)
		}
	}
	return Kind{}, errors.New(unknownKind(name))
}

// unknownKind names the kind that a misspelt one is closest to, be it by its case alone.
func unknownKind(name string) string {
	best, bestCost := "", 3
	for _, k := range kinds {
		if cost := editDistance(strings.ToLower(name), strings.ToLower(k.Name), bestCost); cost < bestCost && cost <= len(k.Name)/3 {
			best, bestCost = "; did you mean "+k.Name+"?", cost
		}
	}
	return fmt.Sprintf("unknown kind %q, want one of %s%s", clip(name), strings.Join(kindNames(), ", "), best)
}

func kindNames() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	return names
}
