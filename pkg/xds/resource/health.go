// SPDX-License-Identifier: Apache-2.0

package resource

import "time"

// HealthCheckKind is what an active health check speaks.
type HealthCheckKind uint8

// The kinds.
const (
	CheckHTTP HealthCheckKind = iota
	CheckGRPC
	CheckTCP
)

// String is the kind as Envoy's events name it.
func (k HealthCheckKind) String() string { return [...]string{"HTTP", "GRPC", "TCP"}[k] }

// HealthCheck is how the endpoints of a cluster are asked whether they are well.
// Intervals that follow another one by default are filled in.
type HealthCheck struct {
	Name string // part of the names of its stats; "": none
	Kind HealthCheckKind

	Timeout                  time.Duration
	Interval                 time.Duration
	NoTrafficInterval        time.Duration // while the cluster has never had a connection; default 60 s
	NoTrafficHealthyInterval time.Duration // the same, of endpoints that are healthy
	UnhealthyInterval        time.Duration
	UnhealthyEdgeInterval    time.Duration // after a failure that has not made it unhealthy yet
	HealthyEdgeInterval      time.Duration // after a success that has not made it healthy yet
	InitialJitter            time.Duration
	IntervalJitter           time.Duration
	IntervalJitterPercent    uint32 // of the interval
	UnhealthyThreshold       uint32 // ≥ 1
	HealthyThreshold         uint32 // ≥ 1
	ReuseConnection          bool
	Uneject                  bool // a success takes back what outlier detection has ejected

	EventLog          string // path; "": none
	AlwaysLogFailures bool
	AlwaysLogSuccess  bool

	ALPN []string // in place of what the cluster's TLS offers
	// MatchCriteria choose among Cluster.SocketMatches in place of an endpoint's
	// metadata; nil: the metadata does.
	MatchCriteria map[string]string

	Path     string // HTTP, with the query
	Method   string // HTTP
	Host     string // HTTP and gRPC: the authority; "": the cluster's name
	HTTP2    bool   // HTTP
	Headers  []HeaderValue
	Remove   []string     // HTTP: names in lower case
	Expected []StatusSpan // HTTP; 200 is among them by default
	// Retriable statuses count towards UnhealthyThreshold; any other that is not
	// expected makes unhealthy at once.
	Retriable    []StatusSpan
	ServiceName  *StringMatch // HTTP: of the header that says whose instance answered
	Service      string       // gRPC
	Send         []byte       // TCP and HTTP
	Receive      [][]byte     // TCP and HTTP: in this order, with anything between
	ReceiveBytes int          // HTTP: so much of the body is searched
	SendProxy    int          // TCP: version of the PROXY header; 0: none
}

// HeaderValue is a header with a value that is known beforehand.
type HeaderValue struct {
	Name, Value string
	Action      HeaderAction
}

// StatusSpan are the HTTP statuses from From up to but without To.
type StatusSpan struct{ From, To int }

// EndpointCheck is what an endpoint says of its own health checks.
type EndpointCheck struct {
	Address  Address // in place of the endpoint's; zero: the same
	Port     uint16  // likewise
	Hostname string  // in place of HealthCheck.Host
	Disabled bool    // it is not checked, and counts as healthy
}
