// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Limits of the API.
const (
	maxBodyBytes    = mesh.MaxDocumentBytes
	maxMountedBytes = 16 << 20 // mounted handlers have limits of their own below it
	maxHeaderBytes  = 32 << 10
	maxInFlight     = 512
	maxWatchers     = 256
	requestTimeout  = 30 * time.Second
	headerTimeout   = 5 * time.Second
	idleTimeout     = 2 * time.Minute
	keepaliveEvery  = 15 * time.Second
	defaultPageSize = 500
	maxPageSize     = 1000
)

// Sidecars is what is known of connected clients of the xDS server.
type Sidecars interface {
	// Sidecars lists them ordered by node.
	Sidecars() []Sidecar
	// SidecarConfig is what a node was last given, or false when it is not known.
	// The value is written as JSON.
	SidecarConfig(node string) (any, bool)
}

// Explainer says where a request would go.
type Explainer interface {
	Explain(ctx context.Context, q ExplainQuery) (Explanation, error)
}

// Config of a Server.
type Config struct {
	State *store.State
	// Sidecars and Explainer may be nil; their routes then answer 503.
	Sidecars  Sidecars
	Explainer Explainer
	// Authority is the mesh's certificate authority; its routes answer 503 when nil.
	Authority Authority
	// Mounts are further handlers by path prefix, such as /zipkin/. They stand
	// behind the same checks of caller, host and origin.
	Mounts map[string]http.Handler
	// Metrics append Prometheus text to /metrics.
	Metrics []func(io.Writer)
	// Ready says why the control plane is not ready, nil when it is.
	Ready func() error
	// Token is what callers must send as a bearer token; empty asks for none.
	Token string
	// Loopback says that the listener is on a loopback address: the Host header must then be one.
	Loopback bool
	Version  string
	Logger   *slog.Logger
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
}

// Server answers the API. It is safe for concurrent use.
type Server struct {
	config  Config
	state   *store.State
	log     *slog.Logger
	now     func() time.Time
	handler http.Handler
	started time.Time
	reviews atomic.Pointer[mesh.Reviewer] // of the model that was answered from last

	inFlight chan struct{} // a slot for each request that runs
	watchers chan struct{} // a slot for each open stream
	stop     chan struct{} // closed by Stop: streams end
	requests requestCounters
}

// New makes a server.
func New(c Config) (*Server, error) {
	if c.State == nil {
		return nil, errors.New("rest: state: required")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{
		config: c, state: c.State, log: c.Logger, now: c.Now, started: c.Now(),
		inFlight: make(chan struct{}, maxInFlight), watchers: make(chan struct{}, maxWatchers), stop: make(chan struct{}),
	}
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.method+" "+r.path, s.limited(r))
	}
	for prefix, h := range c.Mounts {
		mux.Handle(prefix, s.mounted(h))
	}
	mux.HandleFunc("/", s.notFound)
	s.handler = s.guarded(s.counted(allowed(mux)))
	return s, nil
}

// Handler is the whole API behind its checks.
func (s *Server) Handler() http.Handler { return s.handler }

// HTTPServer is a server with the API's limits for the given handler, which is
// Handler or a wrapper of it.
func (s *Server) HTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Stop ends open streams, so that an http.Server's Shutdown does not wait for
// them. It may be called once.
func (s *Server) Stop() { close(s.stop) }

// limited bounds what one request of a route may cost.
func (s *Server) limited(r route) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		slots := s.inFlight
		if r.stream != nil && r.stream(req) {
			slots = s.watchers
		} else if err := http.NewResponseController(w).SetWriteDeadline(s.now().Add(requestTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			s.log.Debug("write deadline", "error", err)
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			w.Header().Set("Retry-After", "1")
			s.problem(w, req, problem{Status: http.StatusServiceUnavailable, Title: "Too many requests under way"})
			return
		}
		limit := r.maxBody
		if limit == 0 {
			limit = maxBodyBytes
		}
		req.Body = http.MaxBytesReader(w, req.Body, limit)
		r.handle(w, req)
	}
}

// mounted gives another handler the same slots.
func (s *Server) mounted(h http.Handler) http.Handler {
	return s.limited(route{handle: h.ServeHTTP, maxBody: maxMountedBytes})
}
