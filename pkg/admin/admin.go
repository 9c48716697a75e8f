// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

// Proxy is what the admin port shows of the data path. Its methods may be called
// by any number of goroutines.
type Proxy interface {
	// Stats lists all numbers in any order; it gives up when ctx ends. The list is
	// the caller's.
	Stats(ctx context.Context) ([]metrics.Sample, error)
	// WriteClusters writes /clusters, of the clusters that keep accepts (nil: all).
	WriteClusters(w io.Writer, asJSON bool, keep func(name string) bool) error
	// WriteListeners writes /listeners.
	WriteListeners(w io.Writer, asJSON bool) error
	// RuntimeValues are the runtime's keys with their values.
	RuntimeValues() map[string]string
}

// State is how far the process is in its life, numbered as in Envoy's stat
// server.state.
type State uint8

// The states. Only a Live process is ready.
const (
	Live State = iota
	Draining
	PreInitializing
	Initializing
)

// String is Envoy's name.
func (s State) String() string {
	return [...]string{"LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING"}[s]
}

// Drain is what /drain_listeners asks for.
type Drain struct {
	Graceful    bool // let connections end before the listeners close
	InboundOnly bool
	SkipExit    bool // drain connections but keep the listeners
}

// Page is a path of the embedding program's own; it is read-only.
type Page struct {
	Path string // "/agent"
	Help string
	JSON func() any // marshalled for each request
	// Answer takes the place of JSON where the answer depends on the query; an error
	// is the asker's, and answered with 400.
	Answer func(url.Values) (any, error)
	// Params are the parameters that Answer knows, with their help.
	Params [][2]string
}

// NodeInfo is who this proxy is, in the shape of Envoy's core.v3.Node.
type NodeInfo struct {
	ID       string         `json:"id,omitempty"`
	Cluster  string         `json:"cluster,omitempty"`
	Metadata map[string]any `json:"metadata,omitempty"`
	Locality Locality       `json:"locality,omitzero"`
}

// Locality is where it is.
type Locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	SubZone string `json:"sub_zone,omitempty"`
}

// Config is what a server is made of. Address, Proxy and State are required; a
// command whose function is nil does not exist.
type Config struct {
	// Address is HOST:PORT or unix:PATH. A path is made with mode 0600; a socket
	// that a dead process left there is replaced.
	Address string
	// Listener listens at Address already, as a predecessor's did; nil: New binds. The
	// server closes it.
	Listener net.Listener
	// TokenFile holds the bearer token, at least 16 characters, that an address off
	// loopback requires. It is read again when it changes.
	TokenFile string

	Proxy Proxy
	// State is the process's; a failed health check shows Live as Draining.
	State       func() State
	Started     time.Time // zero: now
	Version     string
	Concurrency int // workers
	// HotRestart is the version of handing over to a successor, "" where the process does
	// not; Epoch is how many have handed over before it.
	HotRestart string
	Epoch      int
	// Options and Node are shown by /server_info, as JSON values; NodeInfo has the
	// shape of Envoy's.
	Options, Node any

	// Dump makes /config_dump without secrets in it.
	Dump func(includeEDS bool) ([]byte, error)
	// Waiting lists what initialization still waits for, for /init_dump.
	Waiting func() []string
	// Samples are numbers of other parts of the process; unsorted.
	Samples func() []metrics.Sample
	Pages   []Page
	// Certificates lists what is served with and trusted, for /certs; nil for none.
	Certificates func() []CertificateSet
	// Hystrix serves /hystrix.stream, and Tap /tap if AllowTap says so, because it
	// shows bodies of traffic. Streams end when the server calls their method
	// Close(), where they have one.
	Hystrix  http.Handler
	Tap      http.Handler
	AllowTap bool
	// Events are shown by /events; nil: the path does not exist.
	Events *event.Log
	// Profiling allows /cpuprofiler, /heapprofiler, /heap_dump and /contention.
	Profiling bool

	// Actions. They must begin what is asked for and return.
	Level       *slog.LevelVar
	Drain       func(Drain)
	Quit        func()
	ReopenLogs  func()
	HealthCheck func(fail bool) // told of /healthcheck/{fail,ok}, which exist without it too

	Log *slog.Logger
}

// Server is an admin port that is bound.
type Server struct {
	// set once
	config   Config
	log      *slog.Logger
	listener net.Listener
	bound    net.Listener // without what is around it
	path     string       // of the Unix socket, to remove
	http     *http.Server
	guard    guard
	commands map[string]*command
	heavy    chan struct{} // tokens for what costs memory
	done     chan struct{} // closed by Close
	closing  sync.Once

	// atomic
	unhealthy    atomic.Bool
	eventReaders atomic.Int64
	baseline     atomic.Pointer[map[string]uint64] // of counters, at the last reset
	inherited    atomic.Pointer[map[string]uint64] // of counters, see Inherit

	profile cpuProfile
	fresh   freshConns
}

// Limits of the port.
const (
	maxConnections  = 128
	maxHeaderBytes  = 16 << 10
	maxHeavy        = 4 // stats, dumps and profiles at the same time
	maxRegexpBytes  = 1 << 10
	statsTimeout    = 2 * time.Second
	responseTimeout = 30 * time.Second
	mutexFraction   = 100 // one contended lock in so many is noted, with profiling
)

// New binds the address; Serve answers. An address that is in use is an error
// that wraps syscall.EADDRINUSE.
func New(c Config) (*Server, error) {
	if c.Proxy == nil || c.State == nil {
		return nil, errors.New("admin: Proxy and State are required")
	}
	if c.Started.IsZero() {
		c.Started = time.Now()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Profiling {
		runtime.SetMutexProfileFraction(mutexFraction)
	}
	s := &Server{config: c, log: c.Log, heavy: make(chan struct{}, maxHeavy), done: make(chan struct{})}
	s.commands = map[string]*command{}
	for _, cmd := range s.commandList() {
		s.commands[cmd.path] = cmd
	}
	for _, pg := range c.Pages {
		if s.commands[pg.Path] != nil {
			return nil, fmt.Errorf("admin: page %q: the path is taken", pg.Path)
		}
		s.commands[pg.Path] = newPage(pg)
	}
	l, path, err := c.Listener, "", error(nil) // the file of an inherited socket is another's, see Own
	if l == nil {
		l, path, err = listen(c.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("admin address %q: %w", c.Address, err)
	}
	if s.guard, err = newGuard(c.Address, l.Addr(), c.TokenFile); err != nil {
		_ = l.Close() // the reason is err
		return nil, fmt.Errorf("admin address %q: %w", c.Address, err)
	}
	s.bound = l
	s.listener, s.path = limitConnections(spareFor(l), maxConnections), path
	s.http = &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: responseTimeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: maxHeaderBytes,
		ConnState: s.fresh.changed,
		ErrorLog:  slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Addr is where the server listens: HOST:PORT with the port that was found, or
// unix:PATH.
func (s *Server) Addr() string {
	a := s.listener.Addr()
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

// Serve answers until Close; it returns nil then.
func (s *Server) Serve() error {
	err := s.http.Serve(s.listener)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("admin port: %w", err)
}

// Close stops accepting, ends streams, lets other answers end until ctx does, and
// then cuts them off.
func (s *Server) Close(ctx context.Context) error {
	for _, h := range [...]http.Handler{s.config.Hystrix, s.config.Tap} {
		if c, ok := h.(interface{ Close() }); ok {
			c.Close()
		}
	}
	s.closing.Do(func() { close(s.done) })
	s.profile.end()
	s.fresh.close()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("admin port: %w", err), s.http.Close())
	}
	// A server that never served does not know its listener.
	if cerr := s.listener.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	if s.path != "" {
		if rerr := os.Remove(s.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// state is the process's with what /healthcheck/fail did.
func (s *Server) state() State {
	st := s.config.State()
	if st == Live && s.unhealthy.Load() {
		return Draining
	}
	return st
}
