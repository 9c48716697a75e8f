// SPDX-License-Identifier: Apache-2.0

package als

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	maxLogs   = 64               // bounds the streams of a process
	leaveTime = 10 * time.Second // for what waits in a log that nobody uses any more
)

// Config says who logs and how to reach a cluster.
type Config struct {
	// NodeID and NodeCluster identify this proxy on each stream.
	NodeID, NodeCluster string
	// ClusterAddress finds HOST:PORT of an endpoint of a cluster. It is asked at
	// each dial; while it has no answer, entries wait.
	ClusterAddress func(cluster string) (string, error)
}

// Pool holds the logs of a process. Its methods may be called from any goroutine.
type Pool struct {
	config Config
	ctx    context.Context

	mu      sync.Mutex // guards the rest
	logs    map[string]*log
	leaving map[*log]bool               // without users; they send what waits
	conns   map[string]*grpc.ClientConn // by cluster
	closed  bool
}

// user is what a plan has of a log. Plans, exchanges that began under one and
// records in rings all refer to it, so that the garbage collector alone knows when
// the last has gone: the log is given back then.
type user struct{ *log }

// NewPool makes an empty pool. When ctx ends, everything stops at once; Close
// sends what waits.
func NewPool(ctx context.Context, c Config) (*Pool, error) {
	if c.ClusterAddress == nil {
		return nil, errors.New("access log service: no way to reach clusters")
	}
	return &Pool{config: c, ctx: ctx, logs: map[string]*log{}, leaving: map[*log]bool{}, conns: map[string]*grpc.ClientConn{}}, nil
}

// conn is the connection to a cluster, made at its first use; it connects by
// itself when a stream is opened.
func (p *Pool) conn(cluster string) (*grpc.ClientConn, error) {
	if c := p.conns[cluster]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+cluster,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(cluster),
		grpc.WithContextDialer(func(ctx context.Context, cluster string) (net.Conn, error) {
			addr, err := p.config.ClusterAddress(cluster)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		return nil, fmt.Errorf("cluster %q: %w", cluster, err)
	}
	p.conns[cluster] = c
	return c, nil
}

// Open returns the log of a resource, making it at its first use; it fits
// accesslog.Options.Remote. Nothing is connected yet.
func (p *Pool) Open(g *resource.GRPCLog) (accesslog.Remote, error) {
	if g.Cluster == "" {
		return nil, errors.New("cluster: required")
	}
	key := fmt.Sprintf("%+v", *g)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logs[key] == nil && len(p.logs) >= maxLogs {
		p.mu.Unlock()
		accesslog.FindUnused()
		p.mu.Lock()
	}
	l := p.logs[key]
	if l == nil {
		var err error
		if l, err = p.make(key, g); err != nil {
			return nil, err
		}
	}
	l.users++
	u := &user{l}
	runtime.AddCleanup(u, p.leave, l)
	return u, nil
}

// make starts the log of a resource. It holds mu.
func (p *Pool) make(key string, g *resource.GRPCLog) (*log, error) {
	if p.closed {
		return nil, errors.New("access logs are closed")
	}
	if len(p.logs) >= maxLogs {
		return nil, fmt.Errorf("more than %d gRPC access logs", maxLogs)
	}
	conn, err := p.conn(g.Cluster)
	if err != nil {
		return nil, err
	}
	l := &log{
		key: key, spec: *g, client: alsv3.NewAccessLogServiceClient(conn), batch: g.BufferBytes, every: time.Duration(g.FlushMillis) * time.Millisecond,
		node: &corev3.Node{Id: p.config.NodeID, Cluster: p.config.NodeCluster},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if l.batch <= 0 {
		l.batch = defaultBatch
	}
	if l.every <= 0 {
		l.every = defaultFlush
	}
	l.ctx, l.stop = context.WithCancel(p.ctx)
	p.logs[key] = l
	go l.run()
	return l, nil
}

// leave takes a user from a log. With the last one its place is free; what waits
// is sent first. The collector calls it and must not be held up.
func (p *Pool) leave(l *log) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.users--; l.users > 0 || p.closed {
		return
	}
	delete(p.logs, l.key)
	p.leaving[l] = true
	go func() { // ends after leaveTime, or with Close or ctx
		ctx, cancel := context.WithTimeout(p.ctx, leaveTime)
		defer cancel()
		l.close(ctx)
		p.left(l)
	}()
}

// left forgets a log that has ended, and the connection that was its alone.
func (p *Pool) left(l *log) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.leaving, l)
	for o := range p.leaving {
		if o.spec.Cluster == l.spec.Cluster {
			return
		}
	}
	for _, o := range p.logs {
		if o.spec.Cluster == l.spec.Cluster {
			return
		}
	}
	if c := p.conns[l.spec.Cluster]; c != nil {
		delete(p.conns, l.spec.Cluster)
		_ = c.Close() // nothing waits on it
	}
}

// Stats are the counts of all logs.
func (p *Pool) Stats() []Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Stats
	for _, l := range p.logs {
		all = append(all, l.read())
	}
	for l := range p.leaving {
		all = append(all, l.read())
	}
	slices.SortFunc(all, func(a, b Stats) int { return strings.Compare(a.Cluster+"\x00"+a.Log, b.Cluster+"\x00"+b.Log) })
	return all
}

// Close sends what waits until ctx ends. Entries that were left are in the error.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	logs, conns := slices.AppendSeq(slices.Collect(maps.Values(p.logs)), maps.Keys(p.leaving)), p.conns
	p.logs, p.conns = map[string]*log{}, map[string]*grpc.ClientConn{}
	p.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range logs {
		wg.Add(1)
		go func() { // ended by ctx, waited for below
			defer wg.Done()
			l.close(ctx)
		}()
	}
	wg.Wait()
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	for _, l := range logs {
		if s := l.read(); s.Waiting > 0 {
			errs = append(errs, fmt.Errorf("access log %q of cluster %q: %d entries were not sent: %s", s.Log, s.Cluster, s.Waiting, s.Error))
		}
	}
	return errors.Join(errs...)
}
