// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/internal/footprint"
	"github.com/outrigger-mesh/outrigger/internal/gcpace"
	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/accesslog/als"
	"github.com/outrigger-mesh/outrigger/pkg/admin"
	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/dns"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/all"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
	"github.com/outrigger-mesh/outrigger/pkg/trace/export"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	// closeLimit bounds the last flush of spans at the end.
	closeLimit = 2 * time.Second
	// ringLimit bounds the wait for records to leave the workers' rings.
	ringLimit = time.Second
)

// plane is the data plane: proxy, xDS client, telemetry and admin port, joined.
type plane struct {
	env    environment
	boot   *decode.BootstrapConfig
	proxy  *proxy.Proxy
	client *client.Client
	logs   *accesslog.Writers
	spans  *export.Pool
	spool  *tap.Spool
	admin  *admin.Server // nil: none
	hub    *tap.Hub
	tap    *tap.Writer
	als    *als.Pool
	dns    *dns.Server // nil: none
	names  meshNames   // of the latest snapshot
	places places      // where those names are
	lookups
	outbounds tcpOutbounds // of who holds gate

	lastGood *client.LastGood                   // nil: none is kept
	gate     sync.Mutex                         // held while the configuration is put in service, or is to stay
	left     atomic.Bool                        // a successor has taken over
	taken    chan struct{}                      // closed when this process serves, and no predecessor
	counted  chan struct{}                      // closed when the predecessor has said what it counted
	inherit  sync.Once                          // closes counted
	statics  atomic.Pointer[[]*decode.Resource] // clusters of a bootstrap that was read again

	configured chan struct{}
	failed     chan error
	first      sync.Once
	applied    atomic.Uint64 // snapshots
	changes    chan struct{} // has room for one: there are newly applied ones, for trim
	latest     atomic.Pointer[resource.Snapshot]
	trims      atomic.Uint64 // times memory was given back
	turn       atomic.Uint64 // of clusterAddress
	stop       context.CancelFunc
	done       sync.WaitGroup
	closeOnce  sync.Once
	closeErr   error
}

// startDataPlane joins bootstrap, xDS client, proxy, telemetry and admin port.
func startDataPlane(ctx context.Context, env environment) (_ dataPlane, err error) {
	if os.Getenv("GOGC") == "" {
		// Requests allocate nothing: a collector that runs twice as often costs
		// nothing, and connections and configuration take a third less memory.
		gcpace.Start()
	}
	rings := proxy.NewRings(env.Options.Concurrency) // before there is garbage
	d := &plane{env: env, configured: make(chan struct{}), changes: make(chan struct{}, 1), failed: make(chan error, 1), taken: make(chan struct{}), counted: make(chan struct{})}
	d.hub = tap.NewHub(tap.HubConfig{Workers: env.Options.Concurrency})
	reg := filter.NewRegistry(all.Specs(d.hub)...)
	if d.boot, err = loadBootstrap(&env.Options, env.Node, reg); err != nil {
		return nil, err
	}
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	defer func() {
		if err != nil {
			_ = d.Close() // what was started; the first error is the one to tell
		}
	}()
	d.logs = accesslog.NewWriters(0)
	if err = d.logEvents(); err != nil {
		return nil, err
	}
	ejections, err := d.ejectionLog()
	if err != nil {
		return nil, err
	}
	d.spans = export.NewPool(export.Config{Node: env.Node.ID, ClusterAddress: d.clusterAddress})
	d.als, err = als.NewPool(runCtx, als.Config{NodeID: d.boot.Node.ID, NodeCluster: d.boot.Node.Cluster, ClusterAddress: d.clusterAddress})
	if err != nil {
		return nil, err
	}
	if err = d.startTap(runCtx); err != nil {
		return nil, err
	}
	accepting, dialling, err := connectionLimits(env.Options.Concurrency)
	if err != nil {
		return nil, err
	}
	d.proxy, err = proxy.New(proxy.Options{
		Workers: env.Options.Concurrency, Rings: rings, Filters: reg, AccessLogs: d.logs, Accepting: accepting, Dialling: dialling,
		TraceExporter: d.spans.Open, AccessLogRemote: d.als.Open, Service: d.boot.Node.Cluster, Node: d.boot.Node.ID, Log: env.Logger,
		DrainTime: env.Options.DrainTime, DrainIdle: env.Options.drainIdle(), Binder: env.Heritage.binderOf(), HoldAccepting: env.Heritage.isWaiting(),
		Events: env.Events, EjectionLog: ejections,
		Overload:     overloadSettings(d.boot),
		LocalCluster: d.boot.LocalCluster,
		Locality:     lb.Place{Region: d.boot.Node.Region, Zone: d.boot.Node.Zone, SubZone: d.boot.Node.SubZone},
	})
	if err != nil {
		return nil, fmt.Errorf("data path: %w", err)
	}
	if d.client, err = d.newClient(reg); err != nil {
		return nil, err
	}
	if err = probePorts(ctx, &env.Options, env.Heritage); err != nil {
		return nil, err
	}
	if err = d.startDNS(runCtx); err != nil {
		return nil, err
	}
	if d.admin, err = d.startAdmin(runCtx); err != nil {
		return nil, err
	}
	d.run(runCtx, "data path", d.proxy.Run)
	bound := make(chan error, 1)
	d.bindStatic(bound)
	if err = <-bound; err != nil {
		return nil, err
	}
	d.run(runCtx, "DNS clusters", d.resolver.Run)
	d.run(runCtx, "xDS client", d.client.Run)
	if env.Options.Secure() {
		d.run(runCtx, "identity", d.provideIdentity)
	}
	d.run(runCtx, "memory", d.trim)
	if !env.Heritage.isWaiting() {
		close(d.taken)
	}
	return d, nil
}

// bindStatic applies the bootstrap's own resources at once, so that a busy port
// is an error of the start.
func (d *plane) bindStatic(result chan<- error) {
	s := &resource.Snapshot{
		Listeners: map[string]*resource.Listener{}, Routes: map[string]*resource.RouteConfig{},
		Clusters: map[string]*resource.Cluster{}, Assignments: map[string]*resource.Assignment{},
	}
	for _, r := range d.boot.Clusters {
		if c, ok := r.Value.(*resource.Cluster); ok && c.Discovered() == "" {
			s.Clusters[c.Name] = c
		}
	}
	for _, r := range d.boot.Listeners {
		if l, ok := r.Value.(*resource.Listener); ok && selfContained(l) {
			s.Listeners[l.Name] = l
		}
	}
	if len(s.Listeners) == 0 {
		result <- nil
		return
	}
	result <- d.proxy.Apply(s)
}

// selfContained: the listener needs nothing from a control plane to serve.
func selfContained(l *resource.Listener) bool {
	for _, fc := range append(slices.Clone(l.FilterChains), l.DefaultFilterChain) {
		if fc == nil || fc.HTTP == nil {
			continue
		}
		discovered := func(f resource.HTTPFilter) bool { return f.Discovery != nil }
		if fc.HTTP.Routes == nil || slices.ContainsFunc(fc.HTTP.Filters, discovered) {
			return false
		}
	}
	return true
}

// run starts a part on a goroutine; its early end is the data plane's failure.
func (d *plane) run(ctx context.Context, part string, f func(context.Context) error) {
	d.done.Go(func() {
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		d.fail(fmt.Errorf("%s: %w", part, err))
	})
}

func (d *plane) fail(err error) {
	select {
	case d.failed <- err:
	default: // somebody else failed first
	}
}

func (d *plane) newClient(reg *filter.Registry) (*client.Client, error) {
	d.startResolver()
	cfg := client.Config{
		Bootstrap: d.boot, Registry: reg, Dial: d.dialXDS, Publish: d.publish, LookUp: d.resolver.Want, Refused: d.tellRefused,
		Log: d.env.Logger.With("part", "xds"), Version: version(),
		MaxResponseBytes: d.env.Options.MaxResponseBytes, Asked: d.env.Options.askedListeners(),
	}
	if d.env.DataDir != "" {
		d.lastGood = client.NewLastGood(d.env.DataDir)
		d.lastGood.SetForeign(d.env.Heritage.isWaiting())
		cfg.Store = d.lastGood
	}
	return client.New(cfg)
}

// publish puts a snapshot into service. Errors are the resources' own: the rest
// is in service.
func (d *plane) publish(s *resource.Snapshot) {
	d.gate.Lock()
	defer d.gate.Unlock()
	s = d.asSuccessorHas(s)
	names := s
	s, err := d.places.place(s)
	if err != nil {
		d.env.Logger.Error("destinations that cannot be reached by an address", "error", err)
	}
	if err := d.proxy.Apply(s); err != nil {
		if d.lostPort(s, err) {
			d.fail(fmt.Errorf("configuration: %w", err))
			return
		}
		d.env.Logger.Error("configuration in service only in part", "version", s.Version, "error", err)
	}
	if d.dns != nil {
		d.names.update(names)
	}
	d.outbounds.update(d.env.Options.TCPOutbound, d.listening, d.env.Logger)
	d.latest.Store(s)
	d.applied.Add(1)
	select {
	case d.changes <- struct{}{}:
	default: // one is on its way
	}
	d.first.Do(func() { d.done.Go(func() { d.waitAdopted(s.Version) }) })
}

// waitAdopted tells that the first configuration is in service on every worker.
func (d *plane) waitAdopted(version uint64) {
	for d.proxy.AdoptedVersion() < version {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-d.proxy.Done():
			return
		}
	}
	close(d.configured)
}

// How long configuration must have been quiet before memory is given back, and
// how often that is done at most.
const (
	trimQuiet = 2 * time.Second
	trimEvery = 10 * time.Second
)

// trim gives memory back that a change of configuration needed and its result
// does not, until ctx ends.
func (d *plane) trim(ctx context.Context) error {
	for first := true; ; {
		if !d.quiet(ctx) {
			return nil
		}
		if !first {
			footprint.Release() // the pages of the program are those that traffic needs
		} else if err := footprint.Trim(); err != nil {
			d.env.Logger.Debug("memory is kept", "error", err)
		}
		first = false
		d.trims.Add(1)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(trimEvery):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.changes:
		}
	}
}

// quiet waits until configuration has not changed for trimQuiet; it reports false when
// ctx ends before.
func (d *plane) quiet(ctx context.Context) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-d.changes:
		case <-time.After(trimQuiet):
			return true
		}
	}
}

// dialXDS connects to a management server: the address of the flag in the common
// case, the endpoints of the bootstrap's cluster otherwise, in their order.
func (d *plane) dialXDS(_ context.Context, t client.Target) (*grpc.ClientConn, error) {
	target, more := t.Service.Target, []string(nil)
	if target == "" {
		if len(t.Addresses) == 0 {
			return nil, fmt.Errorf("cluster %q of the management server has no endpoint", t.Service.Cluster)
		}
		target = addressText(t.Addresses[0])
		for _, a := range t.Addresses[1:] {
			more = append(more, addressText(a))
		}
	}
	c := d.env.controlPlane(target)
	c.Alternatives = more
	return grpcdial.Dial(c)
}

// clusterAddress finds an endpoint of a static cluster, for telemetry that is
// configured by cluster: at each call the next one, so that a dead one is left
// with the next try.
func (d *plane) clusterAddress(name string) (string, error) {
	for _, r := range d.staticClusters() {
		c, ok := r.Value.(*resource.Cluster)
		if !ok || c.Name != name || c.Configured() == nil {
			continue
		}
		var all []resource.Address
		for _, l := range c.Configured().Localities {
			for _, e := range l.Endpoints {
				all = append(all, e.Address)
			}
		}
		if len(all) > 0 {
			return addressText(all[(d.turn.Add(1)-1)%uint64(len(all))]), nil
		}
	}
	return "", fmt.Errorf("cluster %q is not among the bootstrap's static clusters", name)
}

func addressText(a resource.Address) string {
	if a.Path != "" {
		return "unix:" + a.Path
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// startTap opens the spool and starts its writer. Without a data folder, taps to
// the lake are dropped and counted.
func (d *plane) startTap(ctx context.Context) error {
	c := tap.WriterConfig{Hub: d.hub, Node: d.boot.Node.ID, Service: d.boot.Node.Cluster, Logger: d.env.Logger.With("part", "tap")}
	if d.env.DataDir != "" {
		spool, err := openSpool(d.env.DataDir)
		if err != nil {
			return fmt.Errorf("--data: tap spool: %w", err)
		}
		d.spool, c.Spool = spool, spool
	}
	w, err := tap.NewWriter(c)
	if err != nil {
		return err
	}
	d.tap = w
	d.run(ctx, "tap", w.Run)
	return nil
}

// Configured implements dataPlane.
func (d *plane) Configured() <-chan struct{} { return d.configured }

// Failed implements dataPlane.
func (d *plane) Failed() <-chan error { return d.failed }

// AdminAddress implements dataPlane.
func (d *plane) AdminAddress() string {
	if d.admin == nil {
		return ""
	}
	return d.admin.Addr()
}

// Drain implements dataPlane.
func (d *plane) Drain(ctx context.Context, scope proxy.DrainScope) error {
	return errors.Join(d.proxy.Drain(ctx, scope), d.emptyRings(ctx))
}

// emptyRings waits until what the rings hold has gone to its queues, so that a flush
// behind a drain finds it there.
func (d *plane) emptyRings(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, ringLimit)
	defer cancel()
	for d.proxy.RecordsWaiting() > 0 || d.hub.Counts().Waiting > 0 {
		select {
		case <-limited.Done():
			return errors.New("drain: records of the last requests are still in their rings")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// ReopenLogs implements dataPlane.
func (d *plane) ReopenLogs() { d.logs.Reopen() }

// Objection implements dataPlane.
func (d *plane) Objection() error { return d.proxy.ObjectionTo("inbound|" + d.env.Options.Service) }

// TapSource implements dataPlane.
func (d *plane) TapSource() agent.Source {
	if d.spool == nil {
		return nil
	}
	return d.spool
}

// SpanSource implements dataPlane.
func (d *plane) SpanSource() agent.Source { return d.spans.Source() }

// Close implements dataPlane.
func (d *plane) Close() error {
	d.closeOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		var errs []error
		if d.admin != nil {
			errs = append(errs, d.admin.Close(ctx))
		}
		if d.stop != nil {
			d.stop()
		}
		d.done.Wait()
		if d.als != nil {
			errs = append(errs, d.als.Close(ctx))
		}
		if d.spans != nil {
			errs = append(errs, d.spans.Close(ctx))
		}
		if d.logs != nil {
			errs = append(errs, d.logs.Close())
		}
		d.closeErr = errors.Join(errs...)
	})
	return d.closeErr
}
