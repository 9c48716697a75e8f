// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"net/netip"
	"time"
)

// Listener is a socket that connections come in by.
type Listener struct {
	Name               string
	StatPrefix         string
	Addresses          []Address // the first is the main one
	Direction          Direction
	FilterChains       []*FilterChain
	DefaultFilterChain *FilterChain
	BufferLimit        int // per connection and direction; default 64 KiB
	Backlog            int // default 1024
	BindToPort         bool
	AccessLog          []*AccessLog
	ContinueOnTimeout  bool
	DrainModifyOnly    bool
	DetectionTimeout   time.Duration // listener_filters_timeout, default 15 s
	Metadata           Metadata
	// Filters look at connections before a chain is chosen, in this order.
	Filters   []ListenerFilter
	Detection *Detection // nil: silence is waited out
	// BypassOverload: overload stops nothing here, IgnoreGlobalLimit: connections are
	// not counted among those of global_downstream_max_connections.
	BypassOverload, IgnoreGlobalLimit bool
}

// ListenerFilter is one of listener_filters.
type ListenerFilter struct {
	Kind ListenerFilterKind
	// Of ProxyProtocol: connections without a header are taken as they are, and
	// versions that are refused.
	HeaderOptional        bool
	RefuseVersion         [3]bool // by version
	MaxHello              int     // of TLSInspector: bytes of a ClientHello; 0: the most there can be
	CloseOnMalformedHello bool
	// Disabled says of which connections the filter knows nothing; nil: of none.
	Disabled *ConnectionMatch
}

// ConnectionMatch is a condition on a connection. Exactly one of Or, And and Not is
// set, or it holds for destination ports from FromPort to below ToPort.
type ConnectionMatch struct {
	Or, And          []*ConnectionMatch
	Not              *ConnectionMatch
	FromPort, ToPort int
}

// Holds says whether the condition holds for a connection to that port.
func (m *ConnectionMatch) Holds(port uint16) bool {
	switch {
	case m == nil:
		return false
	case m.Not != nil:
		return !m.Not.Holds(port)
	case m.Or != nil:
		for _, r := range m.Or {
			if r.Holds(port) {
				return true
			}
		}
		return false
	case m.And != nil:
		for _, r := range m.And {
			if !r.Holds(port) {
				return false
			}
		}
		return true
	}
	return m.FromPort <= int(port) && int(port) < m.ToPort
}

// ListenerFilterKind says what a listener filter does.
type ListenerFilterKind uint8

// The kinds.
const (
	ProxyProtocol ListenerFilterKind = iota
	RestoreOriginalDst
	TLSInspector
	HTTPInspector
)

// Name is Envoy's name.
func (k ListenerFilterKind) Name() string {
	return [...]string{"proxy_protocol", "original_dst", "tls_inspector", "http_inspector"}[k]
}

// Detection lets protocols in which the server speaks first through without waiting
// for listener_filters_timeout: a client that has sent nothing for Wait gets the chain
// for what is none of the protocols told apart, if that is a TCP proxy. Only what
// depends on no policy may be detected so; whoever configures it sees to that.
type Detection struct {
	Wait   time.Duration // at first; default 100 ms. It adapts by destination
	Expiry time.Duration // of what was learned about a destination; default 10 min
}

// Direction is a listener's traffic direction.
type Direction uint8

// The directions.
const (
	Unspecified Direction = iota
	Inbound
	Outbound
)

// String is Envoy's name.
func (d Direction) String() string {
	return [...]string{"UNSPECIFIED", "INBOUND", "OUTBOUND"}[d]
}

// FilterChain is what happens with a connection that Match accepts. Exactly one
// of HTTP and TCP is set.
type FilterChain struct {
	Name  string
	Match FilterChainMatch
	HTTP  *HTTPManager
	TCP   *TCPProxy
	TLS   *DownstreamTLS // nil: plaintext
	// ConnectionLimit is how many connections the chain takes at a time; 0: any.
	ConnectionLimit int
	// RateLimits are how many connections it takes over time.
	RateLimits []*ConnectionRateLimit
	// DestinationNames are names of the mesh whose virtual addresses, which only this
	// process knows, the chain is for beside Match.PrefixRanges. Whoever gives the
	// addresses puts them there; a chain with names left is for no connection.
	DestinationNames []string
}

// FilterChainMatch are the criteria of FilterChainMatch in their order of
// evaluation; an empty one matches all.
type FilterChainMatch struct {
	DestinationPort      uint16 // 0: any
	PrefixRanges         []netip.Prefix
	ServerNames          []string // lower case; "*.x" for any name below x
	TransportProtocol    string   // "", "raw_buffer" or "tls"
	ApplicationProtocols []string
	DirectSourcePrefixes []netip.Prefix
	SourceType           SourceType
	SourcePrefixes       []netip.Prefix
	SourcePorts          []uint16
}

// SourceType says where connections must come from.
type SourceType uint8

// The source types.
const (
	SourceAny SourceType = iota
	SourceSameIPOrLoopback
	SourceExternal
)

// TCPProxy hands a connection's bytes to a cluster.
type TCPProxy struct {
	StatPrefix         string
	Clusters           []WeightedCluster // one entry of weight 1 for a single cluster
	IdleTimeout        time.Duration     // 0: none; default 1 h
	MaxConnectAttempts int               // default 1
	AccessLog          []*AccessLog
	HashSourceIP       bool
	Tap                *ConnectionFilter // nil: none
}

// ConnectionFilter looks on at connections. Config is what the filter's own Parse for
// connections returned.
type ConnectionFilter struct {
	TypeURL string
	Config  any
}

// HTTPManager are the settings of an HTTP connection manager.
type HTTPManager struct {
	StatPrefix string
	Codec      Codec
	HTTP2      HTTP2Options

	// Exactly one of these says where routes come from.
	RouteConfigName string       // RDS
	Routes          *RouteConfig // inline
	Scoped          *ScopedRoutes

	Filters   []HTTPFilter // in order, the router last
	AccessLog []*AccessLog
	// AccessLogInterval > 0 logs long streams periodically.
	AccessLogInterval time.Duration
	Tracing           *Tracing

	ServerName            string // default "outrigger"
	ServerHeader          ServerHeader
	UseRemoteAddress      bool
	XFFTrustedHops        int
	SkipXFFAppend         bool
	Via                   string
	GenerateRequestID     bool // default true
	PreserveRequestID     bool // preserve_external_request_id
	AlwaysSetRequestID    bool // in responses
	NormalizePath         bool
	MergeSlashes          bool
	EscapedSlashes        EscapedSlashes
	StripMatchingPort     bool
	StripAnyPort          bool
	ClientCert            ForwardClientCert
	StripTrailingHostDot  bool
	RejectUnderscores     bool // headers_with_underscores_action REJECT_REQUEST
	DropUnderscores       bool // … DROP_HEADER
	Accept10              bool // HTTP/1.0 requests
	DefaultHost10         string
	StreamErrorOnInvalid  bool
	InternalAddressRanges []netip.Prefix // default none: nothing is internal but loopback of this host

	MaxHeadBytes          int           // default 60 KiB
	MaxHeaders            int           // default 100
	MaxRequestsPerConn    int           // 0: no limit
	IdleTimeout           time.Duration // default 1 h
	MaxConnectionDuration time.Duration // 0: none
	StreamIdleTimeout     time.Duration // default 5 min
	RequestTimeout        time.Duration // 0: none
	RequestHeadersTimeout time.Duration // default 10 s
	DelayedCloseTimeout   time.Duration // default 1 s
	DrainTimeout          time.Duration // default 5 s; between GOAWAYs of HTTP/2: HTTP/1 says "connection: close" at once
	MaxStreamDuration     time.Duration
	Upgrades              []Upgrade
	LocalReplies          []LocalReplyMapper
	LocalReplyFormat      *LogFormat // body_format of local_reply_config
}

// Codec is the protocol a listener speaks.
type Codec uint8

// The codecs.
const (
	CodecAuto Codec = iota
	CodecHTTP1
	CodecHTTP2
)

// ForwardClientCert says what becomes of x-forwarded-client-cert. Whatever it says,
// only connections with a client's certificate forward or set it, but for
// ForwardAlways.
type ForwardClientCert struct {
	Mode              ForwardMode
	Subject, DNS, URI bool // what is told of the client beside the hash
}

// ForwardMode is forward_client_cert_details.
type ForwardMode uint8

// The modes.
const (
	ForwardSanitize ForwardMode = iota // removed
	ForwardOnly
	ForwardAppend
	ForwardSanitizeSet // what the client wrote is removed
	ForwardAlways
)

// ServerHeader says what becomes of the response's Server header.
type ServerHeader uint8

// The transformations.
const (
	ServerOverwrite ServerHeader = iota
	ServerAppendIfAbsent
	ServerPassThrough
)

// EscapedSlashes says what becomes of %2F and %5C in paths.
type EscapedSlashes uint8

// The actions.
const (
	SlashesKeep EscapedSlashes = iota
	SlashesReject
	SlashesUnescapeRedirect
	SlashesUnescapeForward
)

// LocalReplyMapper rewrites replies that the proxy itself makes.
type LocalReplyMapper struct {
	Filter  *LogFilter
	Status  int    // 0: keep
	Body    string // "": keep
	HasBody bool
	Format  *LogFormat
	Add     []HeaderOption
}

// HTTPFilter is one filter of the chain. Config is what the filter's own Parse
// returned.
type HTTPFilter struct {
	Name     string
	TypeURL  string
	Config   any
	Disabled bool
	// Discovery says that TypeURL and Config come by themselves (ECDS); nil: they do not.
	// Missing: they have not, and there is no default.
	Discovery *FilterDiscovery
	Missing   bool
}

// FilterDiscovery are the terms of a filter whose configuration comes by itself, by the
// filter's name.
type FilterDiscovery struct {
	TypeURLs []string         // that are taken
	Default  *ExtensionConfig // nil: none
}

// ExtensionConfig is the configuration of an HTTP filter.
type ExtensionConfig struct {
	Name    string
	TypeURL string
	Config  any // what the filter's own Parse returned
}

// Tracing are the tracing settings of an HTTP connection manager.
type Tracing struct {
	ClientSampling  Percent // default 100 %
	RandomSampling  Percent
	OverallSampling Percent
	Verbose         bool
	MaxPathTag      int // default 256
	Tags            []TracingTag
	Provider        *Tracer
}

// TracingTag is a custom tag.
type TracingTag struct {
	Name    string
	Literal string
	Header  string // request header, lower case
	Default string
}

// Tracer says how trace context travels and where spans go.
type Tracer struct {
	ServiceName string
	Propagation []string // "tracecontext", "b3", "b3multi"; extraction order; all are injected
	Echo        []string // of these, injected only in place of what the request came with
	TraceID128  bool
	SharedSpan  bool
	Exporters   []TraceExporter
}

// TraceExporter is one destination of spans; exactly one field is set.
type TraceExporter struct {
	ZipkinURL      string // http://host:port/api/v2/spans
	ZipkinCluster  string // or by cluster, with ZipkinPath
	ZipkinPath     string
	ZipkinHost     string
	OTLPEndpoint   string // host:port
	OTLPProtocol   string // "grpc" or "http"
	OTLPCluster    string
	ToControlPlane bool
}

// ScopedRoutes picks a route configuration by a key made of the request.
type ScopedRoutes struct {
	Name      string
	Fragments []ScopeFragment
	// Inline scopes, or those of SRDS (Snapshot.ScopedRoute) where FromSRDS.
	Inline   []*ScopedRoute
	FromSRDS bool
}

// ScopeFragment makes one part of the key from a header.
type ScopeFragment struct {
	Header    string // lower case
	Separator string // of elements; "" : the whole value
	Index     int    // with a separator and no Key: the element
	KeySep    string // of key and value in an element
	Key       string
}

// ScopedRoute binds a key to a route configuration.
type ScopedRoute struct {
	Name            string
	RouteConfigName string
	Key             []string
	Inline          *RouteConfig
}
