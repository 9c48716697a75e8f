// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/outrigger-mesh/outrigger/internal/coredump"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/authority"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/files"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/rest"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sessionkeys"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/lake"
	"github.com/outrigger-mesh/outrigger/pkg/spans"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// plane is everything that serve runs.
type plane struct {
	options serveOptions
	log     *slog.Logger
	token   string

	state   *store.State
	control *controlplane.ControlPlane
	spans   *spans.Store
	lake    *lake.Lake
	api     *rest.Server
	http    *http.Server
	grpc    *grpc.Server
	secure  *grpc.Server // nil without --xds-mtls
	sidecar *sidecarservice.Service
	ca      *authority.Runner
	keys    *sessionkeys.Keys

	httpListener, xdsListener, mtlsListener net.Listener
	// running counts the goroutines of start; each ends when its server is
	// stopped or the context of work ends.
	running sync.WaitGroup
	failed  chan error // the first server that ends by itself
}

// serve runs the control plane until the context ends.
func serve(ctx context.Context, io streams, o serveOptions) error {
	log := o.logger(io)
	telemetry, err := startTelemetry(ctx, log)
	if err != nil {
		return err
	}
	p := &plane{options: o, log: log, failed: make(chan error, 3)}
	if err := p.open(telemetry); err != nil {
		return errors.Join(err, p.close(), telemetry.stop())
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	if err := p.start(work); err != nil {
		stop()
		return errors.Join(err, p.close(), telemetry.stop())
	}
	p.announce(io.out)
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case err = <-p.failed:
	}
	p.drain()
	stop()
	return errors.Join(err, p.close(), telemetry.stop())
}

// open opens the ports first, which cost nothing to give back, then the store.
func (p *plane) open(t telemetry) (err error) {
	if p.httpListener, err = p.options.httpListen.listen(); err != nil {
		return err
	}
	if p.xdsListener, err = p.options.xdsListen.listen(); err != nil {
		return err
	}
	if p.options.mtls {
		if p.mtlsListener, err = p.options.mtlsListen.listen(); err != nil {
			return err
		}
	}
	if p.token, err = p.options.openToken(); err != nil {
		return err
	}
	if p.state, err = store.Open(store.Config{Dir: p.options.data, Check: check, Logger: p.log}); err != nil {
		return exitWith(exitCannotServe, "%w", err)
	}
	if err := coredump.Forbid(); err != nil {
		p.log.Warn(err.Error())
	}
	if p.ca, err = p.options.openAuthority(p.log); err != nil {
		return err
	}
	if p.spans, err = spans.NewStore(spans.Config{MaxBytes: p.options.spanBytes}); err != nil {
		return exitWith(exitUsage, "%w", err)
	}
	if p.lake, err = lake.Open(lake.Config{Dir: p.options.lakeDir(), MaxAge: p.options.lakeInterval, Logger: p.log}); err != nil {
		return exitWith(exitCannotServe, "--lake: %w", err)
	}
	if p.keys, err = sessionkeys.Open(sessionkeys.Config{Dir: p.options.data, Life: p.options.sessionKeyLife, Logger: p.log}); err != nil {
		return exitWith(exitCannotServe, "%w", err)
	}
	if p.control, err = controlplane.New(controlplane.Config{
		Source: p.state, TrustDomain: p.ca.Authority().TrustDomain(), SessionKeys: p.keys, OnProblem: p.onProblem, OnLabels: p.onLabels,
		XDS: server.Config{OnEvent: p.onClient, Authorize: authorizeNode, Secrets: mayHaveSecrets},
	}); err != nil {
		return exitWith(exitCannotServe, "%w", err)
	}
	if err := p.openGRPC(t); err != nil {
		return err
	}
	return p.openHTTP(t)
}

func (p *plane) openHTTP(t telemetry) (err error) {
	token := p.token
	if p.options.httpListen.loopback {
		token = ""
	}
	p.api, err = rest.New(rest.Config{
		State: p.state, Sidecars: sidecars{p.control, p.sidecar.Ejected}, Explainer: explainer{p.control, p.state, p.sidecar.Ejected}, Authority: p.ca,
		Mounts: map[string]http.Handler{
			"/zipkin/": p.spans.Handler("/zipkin", time.Now),
			"/v3/":     p.control.Server().RESTHandler(),
		},
		Ready: p.control.Ready, Token: token, Loopback: p.options.httpListen.loopback,
		Metrics: []func(io.Writer){p.writeMetrics, p.writeAuthorityMetrics, p.control.WriteMetrics},
		Version: version(), Logger: p.log,
	})
	if err != nil {
		return exitWith(exitCannotServe, "%w", err)
	}
	p.http = p.api.HTTPServer(t.http(p.api.Handler()))
	return nil
}

// openGRPC makes the plaintext server and the one with TLS; both serve the same.
func (p *plane) openGRPC(t telemetry) (err error) {
	p.sidecar, err = sidecarservice.New(sidecarservice.Config{
		Registry: p.state.Registry(), Tap: p.lake, Spans: p.spans, Events: p.state, Authority: p.ca.Authority(), Logger: p.log,
	})
	if err != nil {
		return exitWith(exitCannotServe, "%w", err)
	}
	plain := sidecarservice.Authentication{MeshToken: p.token, Tokens: p.ca.Authority(), Refused: p.ca.Refused}
	plain.Open = p.options.xdsListen.loopback || p.options.insecure
	p.grpc = p.newGRPC(t, plain)
	if !p.options.mtls {
		return nil
	}
	p.secure = p.newGRPC(t, sidecarservice.Authentication{
		MeshToken: p.token, Tokens: p.ca.Authority(), TrustDomain: p.ca.Authority().TrustDomain(), Refused: p.ca.Refused,
	}, grpc.Creds(sidecarservice.Credentials(p.ca.ServerTLS(), p.ca.Refused)), grpc.ConnectionTimeout(handshakeLimit),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 5 * time.Second,
			MaxConnectionAge: p.options.authority.life / 4, MaxConnectionAgeGrace: min(connectionGrace, p.options.authority.life/8),
		}))
	return nil
}

// The certificate of a connection is renewed at half of its life, give or take, and
// calls with an expired one are refused: connections are made anew at a quarter of
// the life. Calls have the grace to end.
const (
	handshakeLimit  = 10 * time.Second
	connectionGrace = 30 * time.Second
)

func (p *plane) newGRPC(t telemetry, a sidecarservice.Authentication, more ...grpc.ServerOption) *grpc.Server {
	options := append(server.GRPCOptions(), t.grpc()...)
	options = append(options, sidecarservice.Authenticate(a))
	s := grpc.NewServer(append(options, more...)...)
	p.control.Server().Register(s)
	p.sidecar.Attach(s)
	return s
}

// start starts every goroutine of the plane.
func (p *plane) start(ctx context.Context) error {
	if err := p.startFiles(ctx); err != nil {
		return err
	}
	p.running.Go(func() {
		if err := p.control.Run(ctx); err != nil && ctx.Err() == nil {
			p.fail(fmt.Errorf("builder: %w", err))
		}
	})
	p.running.Go(func() {
		if err := p.lake.Run(ctx); err != nil && ctx.Err() == nil {
			p.fail(fmt.Errorf("lake: %w", err))
		}
	})
	p.running.Go(func() { p.ca.Run(ctx) })
	p.running.Go(func() { p.keys.Run(ctx) })
	p.running.Go(func() {
		if err := p.grpc.Serve(p.xdsListener); err != nil {
			p.fail(fmt.Errorf("xds: %w", err))
		}
	})
	if p.secure != nil {
		p.running.Go(func() {
			if err := p.secure.Serve(p.mtlsListener); err != nil {
				p.fail(fmt.Errorf("xds with mutual TLS: %w", err))
			}
		})
	}
	p.running.Go(func() {
		if err := p.http.Serve(p.httpListener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.fail(fmt.Errorf("http: %w", err))
		}
	})
	return nil
}

func (p *plane) fail(err error) {
	select {
	case p.failed <- &exitError{exitFailed, err}:
	default:
	}
}

// startFiles reads the configuration folder before anything is served. Without
// one, objects that a folder left in the store at another start are taken out.
func (p *plane) startFiles(ctx context.Context) error {
	if p.options.config == "" {
		if err := p.state.SyncFiles(ctx, nil); err != nil {
			p.log.Error("objects of an earlier configuration folder cannot be removed", "error", err)
		}
		return nil
	}
	w := &files.Watcher{Dir: p.options.config, Logger: p.log, Apply: func(ctx context.Context, list []files.File) error {
		in := make([]store.File, len(list))
		for i, f := range list {
			in[i] = store.File(f)
		}
		return p.state.SyncFiles(ctx, in)
	}}
	if err := w.Load(ctx); errors.Is(err, store.ErrNoSpace) || errors.Is(err, store.ErrReadOnly) {
		// What the store holds of the folder is served; the watcher tries again.
		p.log.Error("configuration folder cannot be stored now, the last stored objects are in force", "error", err)
	} else if err != nil {
		return exitWith(exitCannotServe, "--config: %w", err)
	}
	p.running.Go(func() { w.Run(ctx) })
	return nil
}

func (p *plane) announce(out io.Writer) {
	token := p.token
	fmt.Fprintln(out, listening("xds", p.xdsListener.Addr().String(), p.options.xdsListen, token, true))
	if p.secure != nil {
		fmt.Fprintf(out, "%-5s %s (mutual TLS, or a token)\n", "mtls", p.mtlsListener.Addr())
	}
	fmt.Fprintln(out, listening("http", p.httpListener.Addr().String(), p.options.httpListen, token, true))
	p.log.Info("ready", "data", p.options.data, "config", p.options.config, "version", version())
}

// drain lets requests end.
func (p *plane) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), p.options.drain)
	defer cancel()
	p.api.Stop()
	p.sidecar.Stop()
	stopped := make(chan struct{})
	go func() { // ends with GracefulStop, which Stop below ends at the latest
		var all sync.WaitGroup
		for _, s := range p.servers() {
			all.Go(s.GracefulStop)
		}
		all.Wait()
		close(stopped)
	}()
	if err := p.http.Shutdown(ctx); err != nil {
		p.log.Warn("requests were cut off", "error", err)
	}
	select {
	case <-stopped:
	case <-time.After(streamGrace):
		// xDS streams last for ever: clients reconnect and keep their last configuration meanwhile.
		for _, s := range p.servers() {
			s.Stop()
		}
		<-stopped
	}
}

// servers are the gRPC servers that there are.
func (p *plane) servers() []*grpc.Server {
	var out []*grpc.Server
	for _, s := range []*grpc.Server{p.grpc, p.secure} {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// streamGrace is how long calls of sidecars may end after SIGTERM.
const streamGrace = 300 * time.Millisecond

// close gives back what open and start took, in reverse. It may follow a failed open.
func (p *plane) close() error {
	var errs []error
	for _, s := range p.servers() {
		s.Stop()
	}
	if p.http != nil {
		errs = append(errs, p.http.Close())
	}
	for _, l := range []net.Listener{p.httpListener, p.xdsListener, p.mtlsListener} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	p.running.Wait()
	if p.control != nil {
		p.control.Close()
	}
	if p.lake != nil {
		if err := p.lake.Close(); err != nil {
			// Nothing is lost: the next start takes over the log.
			p.log.Error("lake: files could not be written; the log keeps them", "error", err)
		}
	}
	if p.state != nil {
		errs = append(errs, p.state.Close())
	}
	return errors.Join(errs...)
}
