// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/proxy"
)

// dataPlane is the proxy with its xDS client and admin port, as run sees it.
type dataPlane interface {
	succession
	// Configured is closed when every worker serves the first complete
	// configuration, be it from the control plane or the last good one on disk.
	Configured() <-chan struct{}
	// Failed yields one error if the data plane ends by itself.
	Failed() <-chan error
	// AdminAddress is where the admin port listens: HOST:PORT, unix:PATH, or empty.
	AdminAddress() string
	// Drain lets what is under way end: it goes on accepting, tells downstreams to
	// close after their response, and returns when nothing is left or ctx ends.
	Drain(ctx context.Context, scope proxy.DrainScope) error
	// Reload reads the bootstrap again and puts into service what may change while the
	// process runs. It says what was done, and what was not.
	Reload() (string, error)
	// Alive returns an error if a worker makes no progress until ctx ends.
	Alive(ctx context.Context) error
	// ReopenLogs opens the access logs anew, after they were rotated.
	ReopenLogs()
	// Objection is why the health check of the service's policy fails the application
	// beside the sidecar; nil for nothing.
	Objection() error
	// Ejected are the endpoints that are left out now.
	Ejected() []agent.Ejected
	// TapSource and SpanSource are what the agent uploads; nil for none.
	TapSource() agent.Source
	SpanSource() agent.Source
	// Close ends everything at once and waits for it.
	Close() error
}

// environment is what a data plane is started with.
type environment struct {
	Options Options
	Node    Node
	// ControlPlane is the connection of the common case, shared with the agent; nil
	// with a bootstrap.
	ControlPlane *grpc.ClientConn
	// Certificates are the sidecar's identity; nil with a bootstrap.
	Certificates *agent.Certificates
	// DataDir is this process's own folder, empty when nothing is kept.
	DataDir string
	// Heritage are sockets that were bound before this process; nil: none.
	Heritage *heritage
	// Epoch is how many processes have handed over before this one, 0 after a cold start.
	Epoch int
	// Events get what this process decides.
	Events   *event.Log
	Logger   *slog.Logger
	LogLevel *slog.LevelVar
	// AgentStatus is what the admin port shows of the agent; callable from any
	// goroutine at any time.
	AgentStatus func() agent.Status
	// Quit begins an orderly end, as SIGTERM does; for /quitquitquit.
	Quit func()
}

// parts are what the commands need and others provide.
type parts struct {
	// start returns when every listener that is known so far is bound; a busy
	// address is an error that wraps syscall.EADDRINUSE.
	start func(context.Context, environment) (dataPlane, error)
	// validate checks the bootstrap that Options names and returns every fault with
	// file:line and field path.
	validate func(Options) error
}
