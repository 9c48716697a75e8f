// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/internal/coredump"
	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/grpcdial"
)

// What each step of an orderly end may take, beside draining itself.
const (
	deregisterLimit = 3 * time.Second
	flushLimit      = 5 * time.Second
	// The same after the command of `exec` has ended: nobody is left to serve.
	hasteLimit = 400 * time.Millisecond
)

// process is one running sidecar: the data path, and the agent beside it.
type process struct {
	o      Options
	log    *slog.Logger
	events *event.Log
	dp     dataPlane
	agent  *agent.Agent // nil without a control plane of the common case
	conn   *grpc.ClientConn
	lock   *os.File // the data folder's

	dataDir    string     // empty: nothing is kept
	successor  *successor // of a process that took over; nil: this one started cold
	upgrades   *upgrades  // nil: this process hands over to none
	ending     chan struct{}
	endingOnce sync.Once
	succeeded  bool // a successor serves
	epoch      int  // how many processes were before this one
	notify     notifier
	watching   sync.WaitGroup
	unwatch    context.CancelFunc // nil: nobody watches

	agentStop context.CancelFunc
	agentDone sync.WaitGroup
	quit      chan struct{} // receives when the admin port asks for the end
}

// startProcess starts everything; what it started is closed again on an error.
func startProcess(ctx context.Context, o Options, p parts) (_ *process, err error) {
	if !o.AdminProfiling {
		// Nobody can ask for them, and each new place of an allocation that is sampled
		// makes another page of a large table resident, for good.
		runtime.MemProfileRate = 0
	}
	log, level, err := newLogger(os.Stderr, o.LogLevel)
	if err != nil {
		return nil, err
	}
	bound, err := activated(&o)
	if err != nil {
		return nil, err
	}
	s := &process{o: o, log: log, quit: make(chan struct{}, 1), ending: make(chan struct{}), notify: notifier{log}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.events = event.NewLog(0, nil)
	env := environment{Options: o, Node: o.Node(), Events: s.events, Logger: log, LogLevel: level, Quit: s.requestQuit, Heritage: bound}
	if env.DataDir, err = o.dataDir(); err != nil {
		return nil, err
	}
	s.dataDir = env.DataDir
	link, err := findPredecessor(&o, env.DataDir)
	if err != nil {
		return nil, err
	}
	if link != nil {
		_ = bound.closeRest() // the predecessor's are the same ones, or better
		if env.Heritage, err = s.inherit(link); err != nil {
			return nil, err
		}
		env.Epoch = s.epoch
	} else if env.DataDir != "" {
		if s.lock, err = openData(env.DataDir); err != nil {
			return nil, err
		}
	}
	if o.Common() {
		env.Certificates = newCertificates(&env)
		s.conn, err = grpcdial.Dial(env.controlPlane(o.ControlPlane))
		if err != nil {
			return nil, fmt.Errorf("--controlplane: %w", err)
		}
		env.ControlPlane = s.conn
	}
	// The data plane starts first and shows the agent's status as soon as there is
	// one.
	var running atomic.Pointer[agent.Agent]
	env.AgentStatus = func() agent.Status {
		if a := running.Load(); a != nil {
			return a.Status()
		}
		return agent.Status{}
	}
	dp, err := p.start(ctx, env)
	if err != nil {
		return nil, err
	}
	s.dp = dp
	if err := s.writeAdminAddress(); err != nil {
		return nil, err
	}
	if s.conn == nil {
		return s, nil
	}
	if s.agent, err = newAgent(ctx, env, s.dp, s.registersAfter()); err != nil {
		return nil, err
	}
	if err := coredump.Forbid(); err != nil {
		log.Warn(err.Error())
	}
	running.Store(s.agent)
	agentCtx, stop := context.WithCancel(ctx)
	s.agentStop = stop
	s.agentDone.Go(func() { s.agent.Run(agentCtx) })
	return s, nil
}

// registersAfter is when the instance may be registered: when this process serves.
func (s *process) registersAfter() <-chan struct{} {
	if s.successor != nil {
		return s.successor.serving
	}
	return s.dp.Configured()
}

func newAgent(ctx context.Context, env environment, dp dataPlane, serving <-chan struct{}) (*agent.Agent, error) {
	o := env.Options
	c := agent.Config{
		Conn: env.ControlPlane, Node: env.Node.ID, Boot: uuid.NewString(), Service: o.Service,
		Configured: serving,
		App:        o.App, Health: agent.HealthCheck{Path: o.HealthPath}, Objection: dp.Objection,
		Events: env.Events, Ejected: dp.Ejected,
		Tap: dp.TapSource(), Spans: dp.SpanSource(), Certificates: env.Certificates,
		Logger: env.Logger.With("part", "agent"),
	}
	if o.App != "" {
		address, port, err := agent.AdvertisedAddress(ctx, o.Inbound, o.ControlPlane)
		if err != nil {
			return nil, err
		}
		c.Instance = &agent.Instance{
			Service: o.Service, ID: o.ID, Address: address, Port: port, Region: o.Region, Zone: o.Zone,
			Weight: o.Weight, Version: o.VersionLabel, Metadata: o.Labels, MutualTLS: o.Secure(),
		}
	}
	return agent.New(c)
}

func (s *process) requestQuit() {
	select {
	case s.quit <- struct{}{}:
	default: // asked before
	}
}

// writeAdminAddress does what --admin-address-path asks for, atomically, so that a
// waiting script never reads half an address.
func (s *process) writeAdminAddress() error {
	path := s.o.AdminAddressPath
	if path == "" {
		return nil
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, []byte(s.dp.AdminAddress()), 0o644); err != nil { //nolint:gosec // an address, for others to read
		return fmt.Errorf("--admin-address-path: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("--admin-address-path: %w", err)
	}
	return nil
}

// deregister takes the instance out and lets the news arrive.
func (s *process) deregister(ctx context.Context, limit, settle time.Duration) {
	if s.agent == nil || !s.agent.Status().Registered {
		limit, settle = min(limit, hasteLimit), 0
	}
	if s.agent == nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.agent.Deregister(limited); err != nil {
		s.log.Warn("the control plane will miss this instance only when its lease ends", "error", err)
	}
	if settle > 0 {
		timer := time.NewTimer(settle)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// flush hands over what waits for the control plane.
func (s *process) flush(ctx context.Context, limit time.Duration) {
	if s.agent == nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.agent.Flush(limited); err != nil {
		s.log.Warn("not everything reached the control plane", "error", err)
	}
}

// close ends everything at once, in the reverse order of the start.
func (s *process) close() {
	if s.unwatch != nil {
		s.unwatch()
		s.watching.Wait()
	}
	if o := s.abandonUpgrades(); o != nil { // a failure ends this process
		s.dp.Leave()
		_ = o.link.Close()
	}
	if s.successor != nil {
		_ = s.successor.link.Close() // the predecessor keeps what it has not given yet
	}
	if s.agentStop != nil {
		s.agentStop()
		s.agentDone.Wait()
	}
	if s.dp != nil {
		if err := s.dp.Close(); err != nil {
			s.log.Error("close data path", "error", err)
		}
	}
	if s.conn != nil {
		_ = s.conn.Close() // nothing is written through it any more
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// watch feeds systemd's watchdog until close.
func (s *process) watch(ctx context.Context) {
	ctx, s.unwatch = context.WithCancel(context.WithoutCancel(ctx))
	s.watching.Go(func() { s.notify.watch(ctx, s.dp.Alive) })
}

// run serves until a signal, the admin port or a failure ends it.
func run(ctx context.Context, o Options, p parts) error {
	signals := notify()
	defer signals.stop()
	s, err := startProcess(ctx, o, p)
	if err != nil {
		return err
	}
	defer s.close()
	if s.successor != nil {
		if err := s.takeOver(ctx, signals); err != nil {
			return err
		}
	}
	s.upgrades = newUpgrades()
	s.listenForSuccessor()
	s.watch(ctx)
	configured := s.dp.Configured()
	for {
		select {
		case <-configured:
			configured = nil
			s.log.Info("ready", "admin", s.dp.AdminAddress())
			s.notify.ready()
		case err := <-s.dp.Failed():
			if errors.Is(err, syscall.EADDRINUSE) {
				return err // with its own exit code
			}
			return failed("data path: %w", err)
		case <-ctx.Done():
			return s.end(ctx, signals, "context ended")
		case <-s.quit:
			return s.end(ctx, signals, "asked by the admin port")
		case sig := <-signals.received:
			if signals.echo(sig) {
				continue
			}
			switch {
			case signals.ends(sig):
				return s.end(ctx, signals, sig.String())
			case sig == syscall.SIGUSR1:
				s.dp.ReopenLogs()
			case sig == syscall.SIGUSR2:
				s.respawn()
			case sig == syscall.SIGHUP:
				s.reload()
			}
		case link := <-s.upgrades.knocks:
			s.consider(link)
		case o := <-s.upgrades.offers:
			if s.answered(o) {
				return s.retire(ctx, signals, o, false)
			}
		}
	}
}

// end drains; a second signal cuts it short.
func (s *process) end(ctx context.Context, signals *signals, why string) error {
	if o := s.abandonUpgrades(); o != nil {
		s.log.Info("a successor has taken over meanwhile", "reason", why)
		return s.retire(ctx, signals, *o, true)
	}
	s.notify.stopping()
	s.log.Info("draining", "reason", why, "limit", s.o.DrainTime)
	return s.wind(ctx, signals, true, func(ctx context.Context) {
		s.drainInOrder(ctx)
		s.flush(ctx, flushLimit)
	})
}

// wind runs what ends this process, and cuts it short at the second signal. told says
// that there was a first one, or what stands for it.
func (s *process) wind(ctx context.Context, signals *signals, told bool, end func(context.Context)) error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	finished := make(chan struct{})
	go func() { // ends with the drain, which the second signal cuts short
		defer close(finished)
		end(ctx)
	}()
	for {
		select {
		case <-finished:
			s.log.Info("ended")
			return nil
		case sig := <-signals.received:
			switch {
			case !signals.ends(sig) || signals.echo(sig):
			case !told:
				told = true
				s.log.Info("draining already", "signal", sig.String())
			default:
				cancel(errSecondSignal)
				<-finished
				return failed("%w", errSecondSignal)
			}
		}
	}
}

var errSecondSignal = errors.New("second signal: ended without waiting for what was under way")
