// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/trace"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	maxDestinations = 64          // bounds the exporters of a process
	tidyTime        = time.Second // for the collector to tell which are without users
)

// Config is what a pool needs.
type Config struct {
	// Node names this sidecar in exported resources.
	Node string
	// ClusterAddress finds HOST:PORT of an endpoint of a cluster, for collectors
	// that are configured by cluster. Nil refuses them.
	ClusterAddress func(cluster string) (string, error)
}

// Pool holds the exporters of a process. Its methods may be called from any
// goroutine.
type Pool struct {
	config Config
	source *Source

	mu      sync.Mutex // guards the rest
	byKey   map[key]*destination
	leaving map[*destination]bool // without users; they send what waits
	closed  bool
}

// destination is an exporter with the number of its users.
type destination struct {
	exporter
	key   key
	users int // of the pool's mutex
}

// user is what a plan has of a destination. Plans, exchanges that began under one
// and records in rings all refer to it, so that the garbage collector alone knows
// when the last has gone: the destination is given back then.
type user struct{ trace.Exporter }

// key tells destinations apart; OTLP's carry the service in their resource.
type key struct {
	exporter resource.TraceExporter
	service  string
}

// exporter is a destination with its queue.
type exporter interface {
	trace.Exporter
	close(ctx context.Context) error
	leave()
	read() Stats
}

// NewPool makes an empty pool.
func NewPool(c Config) *Pool {
	return &Pool{config: c, source: newSource(), byKey: map[key]*destination{}, leaving: map[*destination]bool{}}
}

// Source is where spans for the control plane wait.
func (p *Pool) Source() *Source { return p.source }

// Open returns the exporter of a destination, making it at its first use; it
// fits trace.Options.Exporter. Nothing is connected yet.
func (p *Pool) Open(e resource.TraceExporter, service string) (trace.Exporter, error) {
	if e.ToControlPlane {
		return p.source, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := key{exporter: e, service: service}
	if p.byKey[k] == nil && len(p.byKey) >= maxDestinations {
		p.mu.Unlock()
		tidy()
		p.mu.Lock()
	}
	d := p.byKey[k]
	if d == nil {
		if p.closed {
			return nil, errors.New("exporters are closed")
		}
		if len(p.byKey) >= maxDestinations {
			return nil, fmt.Errorf("more than %d destinations of spans", maxDestinations)
		}
		x, err := p.make(e, service)
		if err != nil {
			return nil, err
		}
		d = &destination{exporter: x, key: k}
		p.byKey[k] = d
	}
	d.users++
	u := &user{d.exporter}
	runtime.AddCleanup(u, p.leave, d)
	return u, nil
}

// leave takes a user from a destination. With the last one its place is free; what
// waits is sent first. The collector calls it and must not be held up.
func (p *Pool) leave(d *destination) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.users--; d.users > 0 || p.closed {
		return
	}
	delete(p.byKey, d.key)
	p.leaving[d] = true
	go func() { // ends after leaveTime, or with Close
		d.exporter.leave()
		p.mu.Lock()
		delete(p.leaving, d)
		p.mu.Unlock()
	}()
}

// tidy has destinations without users found, where a new one needs a place: the
// collector would come by itself, but not at once.
func tidy() {
	found := make(chan struct{})
	runtime.AddCleanup(&user{}, func(c chan struct{}) { close(c) }, found)
	runtime.GC()
	limit := time.NewTimer(tidyTime)
	defer limit.Stop()
	select {
	case <-found:
	case <-limit.C:
	}
}

func (p *Pool) make(e resource.TraceExporter, service string) (exporter, error) {
	switch {
	case e.ZipkinURL != "":
		return wrap(newZipkin(e.ZipkinURL, e.ZipkinHost, nil))
	case e.ZipkinCluster != "":
		where, err := p.cluster("zipkin", e.ZipkinCluster)
		if err != nil {
			return nil, err
		}
		path := e.ZipkinPath
		if path == "" {
			path = "/api/v2/spans"
		}
		host := e.ZipkinHost
		if host == "" {
			host = e.ZipkinCluster
		}
		return wrap(newZipkin("http://collector.invalid/"+strings.TrimPrefix(path, "/"), host, where))
	case e.OTLPEndpoint != "":
		return wrap(newOTLP(e.OTLPEndpoint, e.OTLPProtocol, service, p.config.Node, nil))
	case e.OTLPCluster != "":
		where, err := p.cluster("otlp", e.OTLPCluster)
		if err != nil {
			return nil, err
		}
		return wrap(newOTLP(e.OTLPCluster, e.OTLPProtocol, service, p.config.Node, where))
	}
	return nil, errors.New("no destination")
}

// wrap keeps a nil pointer from becoming an exporter.
func wrap[T exporter](x T, err error) (exporter, error) {
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (p *Pool) cluster(kind, name string) (func() (string, error), error) {
	if p.config.ClusterAddress == nil {
		return nil, fmt.Errorf("%s.cluster: %q: collectors by cluster are not available here", kind, name)
	}
	return func() (string, error) { return p.config.ClusterAddress(name) }, nil
}

// Stats are the counts of all destinations, by their names.
func (p *Pool) Stats() []Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []Stats{p.source.read()}
	for _, x := range p.byKey {
		all = append(all, x.read())
	}
	for x := range p.leaving {
		all = append(all, x.read())
	}
	slices.SortFunc(all, func(a, b Stats) int { return strings.Compare(a.Destination, b.Destination) })
	return all
}

// Close sends what waits until ctx ends; spans that it could not send are in the
// error. The control plane's source ends when the agent has taken what is left.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	all := slices.AppendSeq(slices.Collect(maps.Values(p.byKey)), maps.Keys(p.leaving))
	p.byKey = map[key]*destination{}
	p.mu.Unlock()
	p.source.close()
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, x := range all {
		wg.Add(1)
		go func() { // ended by ctx, waited for below
			defer wg.Done()
			errs[i] = x.close(ctx)
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}
