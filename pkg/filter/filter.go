// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Exchange is what filters see of one request and its response. The data path
// embeds it; what it keeps to itself is out of a filter's reach.
type Exchange struct {
	Request  codec.RequestHead
	Response codec.ResponseHead
	Route    *resource.Route
	// ClusterConfig are the overrides of the weighted cluster that was chosen, by filter.
	ClusterConfig map[string]any
	// Connection is what filters keep of the downstream connection; nil: there is none.
	Connection *ConnectionState
	Record     record.Record
	Now        int64  // monotonic nanoseconds of this tick
	Random     uint64 // fresh for each exchange

	// HTTP2 is set by a filter whose request can go upstream by HTTP/2 only. It counts
	// where the cluster leaves the protocol to downstream.
	HTTP2 bool

	// ResponseRate is how many bytes a second of the response's body go downstream; 0: as
	// many as can. Filters set it before there is a response; tunnels do not heed it.
	ResponseRate uint64

	// Override names the endpoint that the request goes to, where it can be had. Filters
	// set it before the request is routed upstream; retries do not heed it.
	Override Override
	// FellBack: another cluster than the one that the request was routed to is asked for
	// the answer, as a fallback.
	FellBack bool

	// Local is the reply a filter wants sent; it is read after Reply.
	Local LocalReply
	// Slots are one word of state for each filter of the chain.
	Slots []any
	// Waiter is the data path's; filters call Continuation.
	Waiter Waiter
	// Editor is the data path's, too.
	Editor Editor
}

// Editor writes what configuration wants written, with its command operators.
type Editor interface {
	AddRequestHeaders(list []resource.HeaderOption)
	AddResponseHeaders(list []resource.HeaderOption)
	AppendFormat(dst []byte, f *resource.Format) []byte
}

// Setting is what the filter of that name is configured with for this request in
// particular: by the weighted cluster, the route or the virtual host. Nil: nothing.
func (x *Exchange) Setting(filter string) any {
	if c := x.ClusterConfig[filter]; c != nil || x.Route == nil {
		return c
	}
	return x.Route.FilterConfig[filter]
}

// Draw draws by the exchange's random number: true for so many of a million. Draws of
// different salts are independent of each other.
func (x *Exchange) Draw(perMillion uint32, salt uint64) bool {
	if perMillion == 0 || perMillion >= 1_000_000 {
		return perMillion > 0
	}
	z := x.Random + (salt+1)*0x9e3779b97f4a7c15 // splitmix64
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return uint32((z^z>>31)>>32)%1_000_000 < perMillion
}

// LocalReply is a response that the proxy makes itself.
type LocalReply struct {
	Status      int
	Body        []byte
	ContentType string
	Details     string
	Flags       record.Flags
	// GRPC is what a call of gRPC is answered with; 0: what Status stands for.
	GRPC grpc.Status
}

// Overrider is a configuration, of a filter or of a route, of a filter that sets
// Exchange.Override. It is asked to explain requests, never on a loop.
type Overrider interface {
	// Overrides says in words what of a request for the path names the endpoint, such as
	// a cookie; empty: nothing does. strict: that of Override.
	Overrides(path []byte) (by string, strict bool)
}

// Explainer is a filter that says what it does to a request: limits, faults. It is asked to
// explain requests, by any goroutine: it reads what does not change, and atomics.
type Explainer interface {
	Explain(r *Explained) []Explanation
}

// Explained is a request that is explained and not sent.
type Explained struct {
	Head    *codec.RequestHead
	Setting any    // Exchange.Setting
	Cluster string // that it is for
	Now     int64  // monotonic nanoseconds of the loops
}

// Explanation is one thing that a filter does.
type Explanation struct {
	Stage    string // limits, rate limit, fault
	Reason   string // for people
	Settings any    // the same for scripts, as JSON
}

// Override is a choice of the endpoint; the zero value is none.
type Override struct {
	Address netip.AddrPort // one of the cluster's, or the request is balanced as others are
	// Strict: then it fails instead, with the status NotFound where the cluster has no
	// such endpoint (0: 503), and with 503 where it is unhealthy.
	Strict   bool
	NotFound int
	// Returns: an endpoint that is not of the subset that the route asks for is left for one
	// that is, as soon as the subset has a healthy one. Not where it is Strict.
	Returns bool
}

// Verdict is what a hook answers.
type Verdict uint8

// The verdicts, and no fourth.
const (
	Next  Verdict = iota // go on
	Wait                 // stop until the Continuation is resumed
	Reply                // answer with Exchange.Local
)

// Filter is one filter of one chain on one worker; it serves all exchanges of it.
type Filter interface {
	// OnRequest sees the request's head before it is routed upstream. It is
	// called once for each exchange, in the order of the chain.
	OnRequest(x *Exchange) Verdict
}

// The optional hooks are found once, when a chain is compiled.
type (
	// ResponseFilter sees the head of the response, in the reverse order of the
	// chain: the upstream's, and then that of a reply of the proxy or of a filter
	// which takes its place; to the latter a verdict does not matter.
	ResponseFilter interface{ OnResponse(x *Exchange) Verdict }
	// ReplyFilter sees the head of the reply that it asked for itself.
	ReplyFilter interface{ OnReply(x *Exchange) }
	// RequestDataFilter sees each piece of the request's body on its way.
	RequestDataFilter interface {
		OnRequestData(x *Exchange, chunk []byte, last bool)
	}
	// ResponseDataFilter sees each piece of the response's body.
	ResponseDataFilter interface {
		OnResponseData(x *Exchange, chunk []byte, last bool)
	}
	// ResponseTrailerFilter sees the trailers that end a response, before they are
	// changed by filters nearer to the client.
	ResponseTrailerFilter interface {
		OnResponseTrailer(x *Exchange, h *codec.Header)
	}
	// RequestTransformer changes the request's body on its way: what it returns takes
	// the place of the piece. That may be the piece itself, or memory of the filter
	// that it uses again at the next call. Not ok: the body is broken, and the
	// request is answered with 400. A filter whose bodies get another length sets
	// Request.BodyLength to codec.BodyChunked in OnRequest. last comes once.
	RequestTransformer interface {
		TransformRequest(x *Exchange, chunk []byte, last bool) (out []byte, ok bool)
	}
	// ResponseTransformer is the same for responses of upstreams; it cannot refuse.
	ResponseTransformer interface {
		TransformResponse(x *Exchange, chunk []byte, last bool) []byte
		// TransformTrailer returns the end of the body that takes the place of the
		// trailers; not ok: they stay trailers.
		TransformTrailer(x *Exchange, h *codec.Header) (out []byte, ok bool)
	}
	// DoneFilter is told once when the exchange has ended, however it ended.
	DoneFilter interface{ OnDone(x *Exchange) }
)

// Worker is what a filter may have from the worker it runs on.
type Worker struct {
	Index int
	Slot  int // the filter's index in Exchange.Slots
	// Loop is what the worker runs on: the clock, timers, connections.
	Loop *reactor.Loop
	// Name is the filter's in its chain, StatPrefix the chain's.
	Name, StatPrefix string
	// Service is this node's cluster, Node its id.
	Service, Node string
	// Percent resolves a fraction by the runtime, in millionths.
	Percent func(resource.Percent) uint32
	// Failing reports whether the admin port has said that health checks of this proxy
	// are to fail (/healthcheck/fail).
	Failing func() bool
	// Members counts the endpoints of a cluster, and those that are healthy or degraded;
	// not ok: there is no such cluster. On the worker's loop.
	Members func(cluster string) (total, usable int, ok bool)
	// Number is the runtime's number of a key, def where it has none.
	Number func(key string, def float64) float64
}

// Spec describes a kind of filter.
type Spec struct {
	Name    string
	TypeURL string
	// Parse turns the filter's configuration (the bytes of its protobuf message,
	// or the JSON of a TypedStruct) into what New takes. It does everything that
	// can fail.
	Parse func(config []byte) (any, error)
	// Build takes the place of Parse where pkg/xds/decode reads the configuration: it
	// turns the resource into what New takes, once, so that it may hold what workers share.
	Build func(resource any) any
	// Secrets is told of all secrets (SDS) that there are, by name, whenever they have
	// changed and before a configuration that needs them is in service; off the loops.
	// They must not be changed, shown or kept on disk. Nil where filters need none.
	Secrets func(all map[string]*resource.Secret)
	// PerRoute: the filter reads its settings of Exchange.Setting. Those of other
	// filters are refused, so that nobody believes them in force.
	PerRoute bool
	// RouteOnly: the type is of such settings, and no filter's own.
	RouteOnly bool
	// New makes the filter for one worker. Nil for a marker such as the router.
	New func(config any, w Worker) Filter
	// Connection is set where the kind also looks on at connections.
	Connection *ConnectionSpec
	// Counts appends what the filters of this kind have counted on a worker, on that
	// worker's loop; nil where they count nothing. Counters outlive the filters.
	Counts func(worker int, dst []Count) []Count
}

// Tag is a variable part of a counter's name, which Prometheus shows as a label.
type Tag struct{ Name, Value string }

// Count is a counter, of the scope cluster.<Cluster>.<Family>.<tags' values>; or of
// Scope, whose part that is not in a tag is Family.
type Count struct {
	Scope           string
	Cluster, Family string
	Tags            []Tag
	Name, Help      string
	Value           uint64
	Gauge           bool // a state: values of workers add up, too
}

// NeedsSecret is a configuration that a secret is needed for.
type NeedsSecret interface {
	// NeededSecret is the name of the secret, which comes by ADS, "" for none, and how
	// long the configuration waits for it before it is in service without.
	NeededSecret() (name string, wait time.Duration)
}

// Registry finds specs by type URL.
type Registry struct {
	byType map[string]*Spec
	list   []*Spec
}

// NewRegistry makes a registry of the given kinds. Two with one type URL are a
// programming error.
func NewRegistry(specs ...Spec) *Registry {
	r := &Registry{byType: make(map[string]*Spec, len(specs))}
	for i := range specs {
		s := &specs[i]
		if _, dup := r.byType[s.TypeURL]; dup {
			panic(fmt.Sprintf("filter: two specs for %s", s.TypeURL))
		}
		r.byType[s.TypeURL] = s
		r.list = append(r.list, s)
	}
	return r
}

// All are the specs in the order in which they were given.
func (r *Registry) All() []*Spec { return r.list }

// Lookup finds the spec of a type URL, nil if there is none.
func (r *Registry) Lookup(typeURL string) *Spec { return r.byType[typeURL] }
