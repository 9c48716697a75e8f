// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// ClusterType says where endpoints come from.
type ClusterType uint8

// The types.
const (
	Static ClusterType = iota
	EDS
	Original   // where each connection was meant to go
	StrictDNS  // all addresses of names
	LogicalDNS // one address of a name at a time
	Aggregate  // those of other clusters
)

// Cluster is a set of endpoints that do the same, and how to talk to them.
// Endpoints are apart, in an Assignment, because they change more often.
type Cluster struct {
	Name        string
	AltStatName string
	Type        ClusterType
	// There are as many clusters as services in a mesh: what is small is in one place.
	TCPKeepAlive         bool
	HTTP2                bool // requests go by HTTP/2
	DownstreamProtocol   bool // requests go by the protocol that they came by
	HTTP2Calls           bool // with DownstreamProtocol: of HTTP/2 only calls of gRPC, others by HTTP/1.1
	CloseOnHealthFailure bool
	// ProxyProtocol is the version of the PROXY header that connections begin with;
	// 0: none.
	ProxyProtocol uint8
	EDSName       string       // EDS resource name; the cluster's where the service name is empty
	OriginalDst   *OriginalDst // of type Original; nil otherwise
	DNS           *DNSLookup   // of types StrictDNS and LogicalDNS; nil otherwise
	Members       []string     // of type Aggregate: other clusters, the most preferred first
	// Endpoints of a static cluster; nil for EDS and DNS, none for Original and Aggregate.
	Static *Assignment

	ConnectTimeout       time.Duration // default 5 s
	BufferLimit          int           // default 64 KiB
	IdleTimeout          time.Duration // of pooled connections; default 1 h
	MaxConnDuration      time.Duration
	MaxRequestsPerConn   int // 0: no limit
	MaxResponseHeaders   int // default 100
	MaxResponseHeadBytes int // default 60 KiB
	KeepAliveTime        time.Duration
	HTTP2Options         HTTP2Options
	BindAddress          string       // upstream_bind_config source address, "" : none
	TLS                  *UpstreamTLS // nil: plaintext
	// SocketMatches come before TLS: the first that accepts an endpoint's metadata is
	// for it, TLS is for those that none accepts.
	SocketMatches []SocketMatch

	LB       LoadBalancing
	Default  Thresholds
	High     Thresholds
	Outlier  *OutlierDetection
	Health   *HealthCheck // nil: endpoints are not checked
	Breaker  *CircuitBreaker
	Fallback *Fallback // nil: none
	Metadata Metadata
}

// OriginalDst says how a cluster of type Original finds its endpoint.
type OriginalDst struct {
	Header  string        // a request header that names IP:PORT, in lower case; "": none
	Port    uint16        // in place of the destination's; 0: none
	Cleanup time.Duration // endpoints unused for so long leave; default 5 s
}

// LBPolicy names a balancing policy.
type LBPolicy string

// The policies.
const (
	RoundRobin   LBPolicy = "round_robin"
	LeastRequest LBPolicy = "least_request"
	Random       LBPolicy = "random"
	RingHash     LBPolicy = "ring_hash"
	Maglev       LBPolicy = "maglev"
	PeakEWMA     LBPolicy = "peak_ewma"
	// ClientWeighted goes round by weights that endpoints' load reports make.
	ClientWeighted LBPolicy = "client_side_weighted_round_robin"
	PickFirst      LBPolicy = "pick_first"
)

// LoadBalancing says how an endpoint is picked.
type LoadBalancing struct {
	Policy LBPolicy

	ActiveRequestBias float64   // least_request, default 1
	BiasKey           string    // of the runtime, over ActiveRequestBias; "" for none
	SlowStart         SlowStart // of round_robin and least_request

	ChoiceCount uint32 // least_request, default 2
	MinRingSize uint32 // ring_hash, default 1 024
	MaxRingSize uint32 // ring_hash, default 8 388 608
	TableSize   uint32 // maglev, default 65 537, prime
	// HashBalanceFactor bounds a host's requests in flight, in percent of its share of
	// the cluster's; of ring_hash and maglev, 0: no bound, else at least 100.
	HashBalanceFactor uint32
	// SubsetSize is how many endpoints of each priority this process uses, chosen at
	// random (random_subsetting); 0: all.
	SubsetSize       uint32
	MurmurHash       bool // of ring_hash: MURMUR_HASH_2 instead of XX_HASH
	UseHostname      bool // hash by hostname instead of address
	FullScan         bool // least_request: the least of all, not of ChoiceCount
	ShuffleAddresses bool // of pick_first
	HasPanic         bool // see PanicThreshold
	FailOnPanic      bool
	LocalityWeighted bool
	IgnoreNewHosts   bool // those that no active health check has seen yet count as absent
	// OverrideStatus are the states in which an endpoint that a request names gets it
	// (override_host_status); 0: DefaultOverrideStatus.
	OverrideStatus StatusSet
	PanicThreshold float64 // percent; default 50; 0: off

	PeakEWMA      LatencyEstimate // of peak_ewma
	ClientWeights *ClientWeights  // of client_side_weighted_round_robin; else nil
	Named         *NamedHosts     // override_host; nil: off
	ZoneAware     *ZoneAware      // nil: the defaults
	Subsets       *Subsets        // nil: none
}

// Thresholds are the limits of one routing priority. They are exact over workers.
type Thresholds struct {
	MaxConnections  uint32 // default 1024
	MaxPending      uint32 // default 1024
	MaxRequests     uint32 // default 1024
	MaxRetries      uint32 // default 3, where there is no budget
	MinRetries      uint32 // default 3
	MaxConnsPerHost uint32 // per_host_thresholds; 0: none
	RetryBudget     bool
	TrackRemaining  bool
	BudgetPercent   float64 // default 20
}

// HealthStatus is an endpoint's health as EDS says it.
type HealthStatus uint8

// The states.
const (
	HealthUnknown HealthStatus = iota // counts as healthy
	Healthy
	Unhealthy
	Draining
	HealthTimeout
	Degraded
)

// Usable reports whether the endpoint may be picked in the first place.
func (h HealthStatus) Usable() bool { return h == HealthUnknown || h == Healthy }

// Assignment are a cluster's endpoints (ClusterLoadAssignment).
type Assignment struct {
	Cluster          string
	Localities       []Locality
	Overprovisioning uint32 // percent; default 140
	DropPerMillion   uint32 // drop_overloads, added up
	DropCategory     string
	WeightedPriority bool
}

// Locality is a group of endpoints that are in one place and have one priority.
type Locality struct {
	Region, Zone, SubZone string
	Priority              uint32
	Weight                uint32
	Endpoints             []Endpoint
}

// Endpoint is one instance.
type Endpoint struct {
	Address  Address
	Hostname string
	Weight   uint32 // ≥ 1
	Health   HealthStatus
	Canary   bool
	// HTTP2Calls is Cluster.HTTP2Calls of one endpoint, where the cluster's is not set.
	HTTP2Calls bool
	Metadata   Metadata
	// OtherLabels are of the namespace envoy.lb what Metadata leaves out.
	OtherLabels map[string]OtherLabel
	Check       *EndpointCheck // nil: nothing of its own
}
