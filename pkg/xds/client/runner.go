// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

const (
	// Reconnecting waits between these, doubling, with jitter.
	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
	// connectTimeout bounds one attempt to open a stream.
	connectTimeout = 10 * time.Second

	aggregated      = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
	aggregatedWorld = aggregated + "StreamAggregatedResources"
	aggregatedDelta = aggregated + "DeltaAggregatedResources"
)

// size is the response's size, for Status.
func (r Response) size() int {
	n := 0
	for _, a := range r.GetResources() {
		n += len(a.GetValue())
	}
	return n
}

func (r DeltaResponse) size() int {
	n := 0
	for _, a := range r.GetResources() {
		n += len(a.GetResource().GetValue())
	}
	return n
}

// startSource makes a source and starts its goroutine. It returns nil for one
// that cannot be (no methods for the type).
func (c *Client) startSource(ctx context.Context, key string, src decode.Source, kinds *[decode.KindCount]interest) *source {
	s := &source{key: key, src: src, single: key != "ads", since: time.Now()}
	for k := range kinds {
		if s.single && (kinds[k].wildcard || len(kinds[k].names) > 0) {
			s.kind = decode.Kind(k)
		}
	}
	s.out.init()
	s.stream = NewStream(StreamConfig{
		Delta: src.Kind == decode.SourceDelta, Polling: src.Kind == decode.SourceREST, Node: c.node, NodeFirstOnly: src.Service.NodeOnFirstOnly,
		Decode: c.decode, Name: c.dec.Name,
		Known: func(kind decode.Kind, name string) []byte {
			if e := c.store.latest[kind][name]; e != nil {
				return e.bytes
			}
			return nil
		},
	})
	ctx, s.cancel = context.WithCancel(ctx)
	c.sources[key] = s
	run := c.runStream
	switch src.Kind {
	case decode.SourceREST:
		run = c.runREST
	case decode.SourcePath:
		run = c.runFile
	}
	// Stopped by s.cancel or the context of Run; waited for by Client.stop.
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		run(ctx, s)
	}()
	return s
}

// tell hands an event to the goroutine of Run and waits until it is taken.
func (c *Client) tell(ctx context.Context, m message) bool {
	select {
	case c.inbox <- m:
		return true
	case <-ctx.Done():
		return false
	}
}

// runStream keeps a gRPC stream open.
func (c *Client) runStream(ctx context.Context, s *source) {
	method, err := s.method()
	if err != nil {
		c.tell(ctx, message{from: s, ev: Closed{}, err: err})
		return
	}
	wait := minBackoff
	for {
		healthy, err := c.connect(ctx, s, method)
		if ctx.Err() != nil || !c.tell(ctx, message{from: s, ev: Closed{}, err: err}) {
			return
		}
		if healthy {
			wait = minBackoff
		}
		if !sleep(ctx, wait/2+rand.N(wait/2)) {
			return
		}
		wait = min(2*wait, maxBackoff)
	}
}

// method is the full name of the gRPC method of a source.
func (s *source) method() (string, error) {
	delta := s.src.Kind == decode.SourceDelta
	if !s.single {
		if delta {
			return aggregatedDelta, nil
		}
		return aggregatedWorld, nil
	}
	t := decode.TypeOf(s.kind)
	m := t.Stream
	if delta {
		m = t.Delta
	}
	if m == "" {
		return "", fmt.Errorf("%s exists only as an incremental stream", t.Short)
	}
	return "/" + t.Service + "/" + m, nil
}

// connect opens a stream and reads it until it ends. healthy says that a
// response has come.
func (c *Client) connect(ctx context.Context, s *source, method string) (healthy bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := c.conns.get(ctx, Target{Service: s.src.Service, Addresses: c.addresses(s.src.Service.Cluster)})
	if err != nil {
		return false, err
	}
	// A connection that broke waits for a backoff of its own before it tries
	// again, which would come on top of ours.
	defer c.conns.release(conn)
	for _, m := range s.src.Service.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, m.Key, m.Value)
	}
	timeout := time.AfterFunc(connectTimeout, cancel)
	desc := &grpc.StreamDesc{StreamName: method, ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, method, grpc.MaxCallRecvMsgSize(c.cfg.MaxResponseBytes))
	if !timeout.Stop() && err != nil {
		return false, fmt.Errorf("no connection within %s: %w", connectTimeout, err)
	}
	if err != nil {
		return false, err
	}
	s.out.reset()
	if !c.tell(ctx, message{from: s, ev: Opened{}}) {
		return false, ctx.Err()
	}
	// The sender ends with ctx, which ends with this function.
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		err := s.out.send(ctx, func(r *Request) error { return send(stream, r, &s.out) })
		if err != nil {
			cancel()
		}
	}()
	healthy, err = c.receive(ctx, s, stream)
	cancel()
	<-sent
	return healthy, err
}

func send(stream grpc.ClientStream, r *Request, o *outbox) error {
	if o.overrun() {
		return errors.New("the server does not read requests")
	}
	if r.Delta != nil {
		return stream.SendMsg(r.Delta)
	}
	return stream.SendMsg(r.World)
}

func (c *Client) receive(ctx context.Context, s *source, stream grpc.ClientStream) (healthy bool, err error) {
	for {
		var m proto.Message
		var ev Event
		if s.src.Kind == decode.SourceDelta {
			r := new(discoveryv3.DeltaDiscoveryResponse)
			m, ev = r, DeltaResponse{r}
		} else {
			r := new(discoveryv3.DiscoveryResponse)
			m, ev = r, Response{DiscoveryResponse: r}
		}
		// A stream that brought what cannot be taken was not healthy, whatever came
		// before: the next one will meet it as well, so the pauses must grow.
		switch err := stream.RecvMsg(m); {
		case err == nil:
		case status.Code(err) == codes.ResourceExhausted && tooLarge.MatchString(err.Error()):
			return false, &sizeError{max: c.cfg.MaxResponseBytes, cause: err}
		case status.Code(err) == codes.Internal:
			return false, err
		default:
			return healthy, err
		}
		healthy = true
		if !c.tell(ctx, message{from: s, ev: ev}) {
			return healthy, ctx.Err()
		}
	}
}

// sizeError says that a response was larger than a client takes.
type sizeError struct {
	max   int
	cause error // nil where there is nothing to add
}

func (e *sizeError) Error() string {
	s := fmt.Sprintf("a response has more than the %d bytes that are accepted", e.max)
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

func (e *sizeError) Unwrap() error { return e.cause }

// tooLarge tells our own side's refusal from an error status of the server, which
// has the same code. gRPC gives it no other mark than its text.
var tooLarge = regexp.MustCompile(`grpc: received message (after decompression )?larger than max`)

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// connections are the connections to management servers, one for each.
type connections struct {
	dial func(ctx context.Context, t Target) (*grpc.ClientConn, error)
	mu   sync.Mutex
	open map[string]*grpc.ClientConn
}

func (l *connections) get(ctx context.Context, t Target) (*grpc.ClientConn, error) {
	if l.dial == nil {
		return nil, errors.New("gRPC sources are not available: there is no dialer")
	}
	key := t.Service.Cluster + "|" + t.Service.Authority + "|" + t.Service.Target
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn := l.open[key]; conn != nil {
		return conn, nil
	}
	conn, err := l.dial(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", t.Service.Cluster+t.Service.Target, err)
	}
	l.open[key] = conn
	return conn, nil
}

// release drops a connection that is not usable any more; the next stream dials
// anew.
func (l *connections) release(conn *grpc.ClientConn) {
	if conn.GetState() != connectivity.TransientFailure {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, c := range l.open {
		if c == conn {
			delete(l.open, key)
		}
	}
	conn.Close()
}

func (l *connections) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, conn := range l.open {
		conn.Close()
		delete(l.open, key)
	}
}
