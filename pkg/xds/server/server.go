// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Fixed bounds.
const (
	// MaxRequestBytes is the largest request that is read, over gRPC or HTTP.
	MaxRequestBytes = 4 << 20

	oversize       = 4 << 20 // some clients' receive window ends there
	maxOutstanding = 64      // responses whose acknowledgement is awaited, per type
	maxNodeID      = 512     // bytes
	maxReason      = 4 << 10 // bytes kept of a client's refusal
	maxEvents      = 1024    // waiting for OnEvent; later ones are dropped and counted
	channelRetry   = 10 * time.Millisecond
	pollerGone     = time.Minute
)

// Config says how a Server behaves. Only Groups is required.
type Config struct {
	// Groups names the sets of resources of a type that a node is given: all
	// that these sets have, the first one winning where two share a name. It
	// must be pure, and is called once per stream and type. What most nodes
	// share should be a set of its own.
	Groups func(n Node, typeURL string) []string
	// OnSubscribe is called, from a stream's goroutine, when a node asks for a
	// set that is not published yet. It must not block.
	OnSubscribe func(n Node, typeURL, group string)
	// Authorize says whether the caller of a stream or of a poll, whose context it
	// is, may be that node; its error ends it before anything is sent. It is called
	// once per stream and once per poll, and must not block. nil: every caller may
	// be every node.
	Authorize func(ctx context.Context, n Node) error
	// Secrets says whether the caller of a stream, whose context it is, may be given
	// secrets; others are answered as if there were none, and so is every poll. It is
	// called once per stream and must not block. nil: nobody may.
	Secrets func(ctx context.Context) bool
	// OnEvent is told of clients coming, going and refusing, one at a time, from
	// the server's own goroutine.
	OnEvent func(Event)

	RemovalGrace   time.Duration // removed clusters and endpoints linger; 2 s, negative for none
	UnknownGrace   time.Duration // until a wanted name is said not to exist; 1 s
	RejectHold     time.Duration // at most one push of a rejected resource in that time; 5 s
	ConnectRate    float64       // new streams per second; 200
	ConnectBurst   int           // new streams at once; 500
	MaxConnectWait time.Duration // a stream that would wait longer is refused; 15 s
	FetchWait      time.Duration // a poll waits for its group to be built; 5 s
	MaxStreams     int           // 20 000
	MaxNames       int           // names in one subscription; 100 000
	ResponseBytes  int           // larger delta responses are split; 3 MiB
	MaxGone        int           // nodes remembered after they left; 1 024
	KeepGone       time.Duration // and for how long; 1 h
	SharedAfter    time.Duration // two clients with one node id are told of when both are there for so long; 45 s
	Clock          func() time.Time
}

func (c *Config) setDefaults() error {
	if c.Groups == nil {
		return errors.New("xds server: Groups is required")
	}
	if c.OnSubscribe == nil {
		c.OnSubscribe = func(Node, string, string) {}
	}
	if c.Authorize == nil {
		c.Authorize = func(context.Context, Node) error { return nil }
	}
	if c.Secrets == nil {
		c.Secrets = func(context.Context) bool { return false }
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	orElse(&c.RemovalGrace, 2*time.Second)
	orElse(&c.UnknownGrace, time.Second)
	orElse(&c.RejectHold, 5*time.Second)
	orElse(&c.ConnectRate, 200)
	orElse(&c.ConnectBurst, 500)
	orElse(&c.MaxConnectWait, 15*time.Second)
	orElse(&c.FetchWait, 5*time.Second)
	orElse(&c.MaxStreams, 20_000)
	orElse(&c.MaxNames, 100_000)
	orElse(&c.ResponseBytes, 3<<20)
	orElse(&c.MaxGone, 1024)
	orElse(&c.KeepGone, time.Hour)
	orElse(&c.SharedAfter, 45*time.Second) // keepalive of GRPCOptions has ended a dead one by then
	return nil
}

func orElse[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

// Server serves xDS. Make one with New, end it with Close.
type Server struct {
	// Set once.
	cfg        Config
	xds        services
	ctx        context.Context
	stop       context.CancelFunc
	timersDone chan struct{}
	events     chan Event
	eventsDone chan struct{}

	counters counters // atomic

	mu        sync.Mutex // guards all below
	sets      map[setKey]*resourceSet
	streams   map[streamKey]*stream
	pollers   map[*stream]time.Time // REST clients, with their last poll
	nodes     map[string]*nodeRecord
	gone      []departure
	pending   map[any]*subscription // by request, between its callback and its watch
	timers    timers
	admission admission
	joins     uint64 // of streams to their nodes
}

type counters struct {
	marshals, responses, resources, nacks, held, oversize, refused, unserved, channelFull, eventsLost atomic.Uint64
}

// Stats are counters since the start, and gauges.
type Stats struct {
	Marshals      uint64 // resources marshalled
	Responses     uint64 // responses handed to streams
	Resources     uint64 // resources and removals in them
	Nacks         uint64
	Held          uint64 // times that a rejected resource was held back
	Oversize      uint64 // responses larger than 4 MiB
	Refused       uint64 // streams not admitted
	Unserved      uint64 // requests for types that are not served
	ChannelFull   uint64 // a bug if it is not 0
	EventsDropped uint64
	Streams       int
	Nodes         int // connected
}

// New makes a server. It starts two goroutines, which Close ends.
func New(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		cfg: cfg, ctx: ctx, stop: stop,
		timersDone: make(chan struct{}), events: make(chan Event, maxEvents), eventsDone: make(chan struct{}),
		sets: map[setKey]*resourceSet{}, streams: map[streamKey]*stream{}, pollers: map[*stream]time.Time{},
		nodes: map[string]*nodeRecord{}, pending: map[any]*subscription{},
		timers:    timers{wake: make(chan struct{}, 1)},
		admission: admission{perSecond: cfg.ConnectRate, burst: float64(cfg.ConnectBurst)},
	}
	s.xds = newServices(ctx, s)
	go s.runTimers()
	go s.runEvents()
	return s, nil
}

// Close ends all streams and the server's goroutines. The gRPC server that it
// is registered with is the caller's to stop.
func (s *Server) Close() {
	s.stop()
	<-s.timersDone
	<-s.eventsDone
}

// GRPCOptions are what a gRPC server that carries xDS needs: bounded requests,
// pings that find dead sidecars, and a limit to how often sidecars may ping.
func GRPCOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxRequestBytes),
		grpc.MaxConcurrentStreams(4096), // of one connection
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	c := &s.counters
	out := Stats{
		Marshals: c.marshals.Load(), Responses: c.responses.Load(), Resources: c.resources.Load(),
		Nacks: c.nacks.Load(), Held: c.held.Load(), Oversize: c.oversize.Load(), Refused: c.refused.Load(),
		Unserved: c.unserved.Load(), ChannelFull: c.channelFull.Load(), EventsDropped: c.eventsLost.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Streams = len(s.streams)
	for _, rec := range s.nodes {
		if len(rec.streams) > 0 {
			out.Nodes++
		}
	}
	return out
}

// notify hands an event on without waiting. It reports false where there was no room: the
// event is lost, and counted.
func (s *Server) notify(e Event) bool {
	if s.cfg.OnEvent == nil {
		return true
	}
	select {
	case s.events <- e:
		return true
	default:
		s.counters.eventsLost.Add(1)
		return false
	}
}

func (s *Server) runEvents() {
	defer close(s.eventsDone)
	for {
		select {
		case e := <-s.events:
			s.cfg.OnEvent(e)
		case <-s.ctx.Done():
			return
		}
	}
}
