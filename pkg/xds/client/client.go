// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Config is what a Client is made of.
type Config struct {
	Bootstrap *decode.BootstrapConfig
	// Node replaces the bootstrap's node where it is not nil.
	Node     *decode.Node
	Registry *filter.Registry
	// Dial connects to a management server. The client closes the connection when
	// Run ends; one connection carries all streams to a target.
	Dial func(ctx context.Context, target Target) (*grpc.ClientConn, error)
	// Publish is called for each snapshot, one at a time, by the goroutine of Run.
	// The next one waits for it.
	Publish func(*resource.Snapshot)
	Log     *slog.Logger // nil: discard
	// Store keeps the last complete snapshot; nil: none is kept.
	Store *LastGood
	// LookUp is told which clusters' names are to be looked up, whenever they have
	// changed: those in use and those that wait for addresses, all of them each time.
	// What is found comes back by Assign. It must not wait. Nil: nothing is looked up.
	LookUp func([]*resource.Cluster)
	// Refused is told of each resource that is refused, once as long as it is for the
	// same reason. It must not wait, and must not call the client. Nil: nobody is told.
	Refused    func(Refusal)
	Asked      []Asked
	Version    string // of this program, for the node
	Extensions []Extension
	// MaxResponseBytes bounds one response: a gRPC message, the body of a poll, a
	// file. A larger one is not read. 0 is DefaultMaxResponseBytes.
	MaxResponseBytes int
}

// DefaultMaxResponseBytes has room for about 100 000 endpoints in one response.
const DefaultMaxResponseBytes = 16 << 20

// Refusal is a resource that was refused, or with no Name a whole response.
type Refusal struct {
	Source, Kind, Name, Version string
	Reason                      string // with the path of the field
}

// Target is a management server to connect to.
type Target struct {
	Service decode.Service
	// Addresses are the endpoints of Service.Cluster; empty for a google_grpc target.
	Addresses []resource.Address
}

// Client gets configuration and publishes snapshots of it. Run owns its state;
// other goroutines may call Status and Dump.
type Client struct {
	cfg  Config
	log  *slog.Logger
	node *corev3.Node

	inbox chan message
	given chan struct{} // holds one: Provide has changed the store
	wg    sync.WaitGroup
	conns connections
	files *watcher

	// mu guards what follows; the goroutine of Run holds it except while it waits
	// and while it publishes.
	mu      sync.Mutex
	dec     *decode.Decoder
	store   *store
	asm     *assembler
	sources map[string]*source
	// scoped is where the route configurations of scopes come from.
	scoped   decode.Source
	snapshot *resource.Snapshot
	started  time.Time
	cached   bool // the snapshot in use is the last good copy
	stale    bool // some resources may be those of the last good copy
	rewant   bool // subscriptions may have to change
	saveAt   time.Time
	bootTime time.Time
	lookedUp map[string]*resource.Cluster // by the key of what is found
}

// message is what a source tells the goroutine of Run.
type message struct {
	from *source
	ev   Event
	err  error // of Closed
}

// New checks the configuration. Run starts it.
func New(cfg Config) (*Client, error) {
	if cfg.Bootstrap == nil {
		return nil, errors.New("xds client: a bootstrap is needed")
	}
	if cfg.Publish == nil {
		return nil, errors.New("xds client: Publish is needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	node := cfg.Bootstrap.Node
	if cfg.Node != nil {
		node = *cfg.Node
	}
	if cfg.MaxResponseBytes < 0 {
		return nil, fmt.Errorf("xds client: MaxResponseBytes is %d", cfg.MaxResponseBytes)
	}
	if cfg.MaxResponseBytes == 0 {
		cfg.MaxResponseBytes = DefaultMaxResponseBytes
	}
	np, err := nodeProto(node, cfg.Version, cfg.Extensions)
	if err != nil {
		return nil, fmt.Errorf("xds client: %w", err)
	}
	c := &Client{
		cfg: cfg, log: cfg.Log, node: np, inbox: make(chan message), given: make(chan struct{}, 1),
		dec: decode.NewDecoder(cfg.Registry), store: newStore(), sources: map[string]*source{}, bootTime: time.Now(),
	}
	c.dec.OnlyManagers(cfg.Bootstrap.Clusters)
	c.asm = newAssembler(c.store)
	c.conns = connections{dial: cfg.Dial, open: map[string]*grpc.ClientConn{}}
	for _, list := range [][]*decode.Resource{cfg.Bootstrap.Clusters, cfg.Bootstrap.Listeners, cfg.Bootstrap.Secrets} {
		for _, r := range list {
			c.store.put(&entry{kind: r.Kind, name: r.Name, res: r, updated: c.bootTime, static: true})
		}
	}
	return c, nil
}

// openStore reads the last good copy. One of another server or node is no fault.
func (c *Client) openStore() {
	err := c.cfg.Store.open(c)
	switch foreign := (*foreignError)(nil); {
	case err == nil:
	case errors.As(err, &foreign):
		c.log.Info("the last good configuration " + foreign.Error() + "; fetched anew")
	default:
		c.log.Warn("the last good configuration cannot be used", "error", err)
	}
}

// Run gets configuration until ctx ends. It returns nil then: trouble with
// sources is logged and shown by Status, and never ends it.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.stop(cancel)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started, c.rewant = time.Now(), true
	c.openStore()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		c.subscribe(ctx)
		c.advance(time.Now())
		c.subscribe(ctx) // what is no longer in use is no longer wanted
		timer.Reset(c.pause())
		c.mu.Unlock()
		var m message
		select {
		case <-ctx.Done():
			c.mu.Lock()
			c.save(true)
			return nil
		case m = <-c.inbox:
		case <-c.given:
		case <-timer.C:
		}
		c.mu.Lock()
		if m.from != nil {
			c.handle(m)
		}
	}
}

// stop ends every goroutine and connection.
func (c *Client) stop(cancel context.CancelFunc) {
	cancel()
	c.wg.Wait()
	c.conns.close()
	if c.files != nil {
		c.files.close()
	}
}

// pause is how long there is nothing to do without news.
func (c *Client) pause() time.Duration {
	now := time.Now()
	next := c.asm.next
	if at := c.cacheAt(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	if !c.saveAt.IsZero() && (next.IsZero() || c.saveAt.Before(next)) {
		next = c.saveAt
	}
	if next.IsZero() {
		return time.Hour
	}
	return max(next.Sub(now), time.Millisecond)
}

// handle takes a message of a source in.
func (c *Client) handle(m message) {
	s := m.from
	now := time.Now()
	switch e := m.ev.(type) {
	case Opened:
		s.connected, s.since, s.lastError = true, now, ""
		c.log.Info("xds stream open", "source", s.label())
	case Closed:
		var size *sizeError
		large := errors.As(m.err, &size)
		if m.err != nil {
			s.lastError = m.err.Error()
		}
		if large {
			s.oversized++
		}
		switch {
		case large:
			c.log.Error("xds response too large: not taken, the last good configuration stays", "source", s.label(), "error", m.err)
		case s.connected || s.failures == 0:
			c.log.Warn("xds stream closed", "source", s.label(), "error", m.err)
		}
		s.connected, s.since = false, now
		s.failures++
		c.asm.extensions.unread(s)
	case Response:
		s.failures = 0
		s.bytes = e.size()
	case DeltaResponse:
		s.failures = 0
		s.bytes = e.size()
	}
	out := s.stream.Step(m.ev)
	if out.Unexpected != "" {
		c.log.Warn("xds response that nobody asked for", "source", s.label(), "type", out.Unexpected)
	}
	for i := range out.Updates {
		c.update(&out.Updates[i], s, now)
	}
	s.out.post(out.Requests)
}

// update applies what a response changed.
func (c *Client) update(u *Update, s *source, now time.Time) {
	before := c.store.latest[decode.Extension]
	if u.Kind == decode.Extension {
		before = maps.Clone(before)
	}
	news := c.refusals(u, s)
	dirty := c.store.dirty[u.Kind]
	c.store.dirty[u.Kind] = false
	for _, name := range c.store.apply(u, s, now) {
		c.log.Warn("a static resource keeps its name", "kind", u.Kind.String(), "name", name, "source", s.label())
	}
	s.count(u, c.store.dirty[u.Kind], now)
	c.store.dirty[u.Kind] = c.store.dirty[u.Kind] || dirty
	if u.Kind == decode.Extension {
		c.asm.extensions.update(u, before, c.store.latest[decode.Extension])
	}
	for _, r := range news {
		c.cfg.Refused(r)
	}
	for _, r := range u.Rejected {
		c.log.Warn("xds resource refused", "source", s.label(), "kind", u.Kind.String(), "name", r.Name, "reason", r.Reason)
	}
	switch u.Kind {
	case decode.Endpoints, decode.VirtualHost, decode.Runtime, decode.Secret, decode.Extension: // they refer to nothing that is fetched
	case decode.Cluster: // most updates leave what they refer to as it was
		c.rewant = c.rewant || c.store.rewire || u.First || c.stale
	default:
		c.rewant = true
	}
	st := &s.kinds[u.Kind]
	st.updated = now
	if u.Accepted {
		st.accepted++
		st.nack = ""
		return
	}
	st.rejected++
	st.nack, st.nackAt = refusal(u.Rejected).GetMessage(), now
}

// refusals are those of an update that are not known yet.
func (c *Client) refusals(u *Update, s *source) (list []Refusal) {
	if c.cfg.Refused == nil {
		return nil
	}
	for _, r := range u.Rejected {
		if known, ok := c.store.bad[u.Kind][r.Name]; ok && known.reason == r.Reason {
			continue
		}
		list = append(list, Refusal{s.label(), u.Kind.String(), r.Name, u.Version, r.Reason})
	}
	return list
}

// advance makes and publishes a snapshot if there is news.
func (c *Client) advance(now time.Time) {
	c.useCache(now)
	changed := c.asm.round(now, c)
	c.countExpired()
	c.rewant = c.rewant || c.asm.moved
	if !c.complete() {
		return
	}
	c.cached = c.cached && c.fromCache()
	if !changed && c.snapshot != nil {
		c.save(false)
		return
	}
	next := c.asm.snapshot(c.snapshot, c.cfg.Bootstrap.Runtime, c.versions())
	if c.snapshot != nil && sameContent(c.snapshot, next) {
		c.save(false)
		return
	}
	c.snapshot = next
	c.cached = c.fromCache()
	c.schedule(now)
	c.mu.Unlock()
	c.cfg.Publish(next)
	c.mu.Lock()
	c.save(false)
}

// complete reports whether a snapshot may be published: the first one only when
// nothing is missing any more, later ones always.
func (c *Client) complete() bool {
	if c.snapshot != nil {
		return true
	}
	return c.asm.held == 0 && (c.asm.started || c.fromCache())
}

// sameContent reports whether b, which follows a, says nothing new.
func sameContent(a, b *resource.Snapshot) bool {
	return len(b.Changes.Clusters) == 0 && sameMap(a.Listeners, b.Listeners) && sameMap(a.ScopedRoute, b.ScopedRoute) &&
		sameMap(a.Routes, b.Routes) && a.Runtime == b.Runtime && sameMap(a.Secrets, b.Secrets)
}

// sameMap goes through all entries; those of clusters and endpoints are not asked for.
func sameMap[T any](a, b map[string]*T) bool { return maps.Equal(a, b) }

// versions are the versions of what has been accepted, by type.
func (c *Client) versions() map[string]string {
	out := map[string]string{}
	for _, s := range c.sources {
		for _, k := range s.stream.Subscribed() {
			if v := s.stream.Version(k); v != "" {
				out[decode.TypeOf(k).Short] = v
			}
		}
	}
	return out
}
