// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// Source is where the model comes from.
type Source interface {
	Model() *mesh.Model
	// Subscribe answers a channel that carries the newest revision and holds at
	// most one; cancel stops the sends.
	Subscribe() (changes <-chan uint64, cancel func())
}

// SessionKeys are the keys that sidecars encrypt sessions with.
type SessionKeys interface {
	// Bytes are one key, or two, the one that encrypts first. They are given to sidecars
	// (XDS.Secrets says to which), and never shown.
	Bytes() []byte
	// Changes answers a channel that holds one when they have changed; stop ends that.
	Changes() (changed <-chan struct{}, stop func())
}

// Config says how a ControlPlane behaves. Only Source is required.
type Config struct {
	Source Source
	// TrustDomain is that of the identities that sidecars have; empty: there are none.
	TrustDomain string
	// SessionKeys encrypt sessions; nil: there are none, and sidecars keep no sessions.
	SessionKeys SessionKeys
	// XDS configures the server; its Groups and OnSubscribe are set here.
	XDS server.Config
	// MinHold is how long a first change waits for others; 10 ms. It doubles with
	// each that comes, up to MaxHold, 100 ms; no change waits longer than
	// MaxDelay, 250 ms.
	MinHold, MaxHold, MaxDelay time.Duration
	// GroupIdle is how long a group without clients is kept; 10 min.
	GroupIdle time.Duration
	// MaxGroups bounds the groups that are kept for clients that may come back;
	// those that are connected are bounded by XDS.MaxStreams. 4 096.
	MaxGroups int
	// OnProblem is told of a problem that is new, or (cleared) over. It is called
	// from Run's goroutine.
	OnProblem func(p BuildProblem, cleared bool)
	// OnLabels is told of labels of a route's backend or of a policy that no instance has
	// and has had for WarnAfter, 10 s, and (cleared) of those that one has again, from
	// Run's goroutine. Of a service without any instance nothing is told.
	OnLabels  func(f mesh.LabelFault, cleared bool)
	WarnAfter time.Duration
	Clock     func() time.Time
}

// ControlPlane builds and publishes. Make one with New, give its Server to a
// gRPC server, call Run.
type ControlPlane struct {
	cfg    Config
	server *server.Server

	wake chan struct{} // holds one: wanted has changed

	mu sync.Mutex // guards what follows
	// wanted are groups that somebody asked for and that are not built yet.
	wanted map[Group]struct{}
	status BuildStatus
}

// BuildStatus is what was built last.
type BuildStatus struct {
	Revision uint64         `json:"revision"` // of the model that is published; 0 before the first build
	At       time.Time      `json:"at,omitzero"`
	Took     time.Duration  `json:"took"`
	Builds   uint64         `json:"builds"`
	Groups   int            `json:"groups"`
	Problems []BuildProblem `json:"problems,omitempty"`
}

// New makes a control plane; Run starts it.
func New(cfg Config) (*ControlPlane, error) {
	if cfg.Source == nil {
		return nil, errors.New("controlplane: Source is required")
	}
	for _, d := range []struct {
		v        *time.Duration
		fallback time.Duration
	}{
		{&cfg.MinHold, 10 * time.Millisecond}, {&cfg.MaxHold, 100 * time.Millisecond},
		{&cfg.MaxDelay, 250 * time.Millisecond}, {&cfg.GroupIdle, 10 * time.Minute}, {&cfg.WarnAfter, 10 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.fallback
		}
	}
	if cfg.MaxGroups == 0 {
		cfg.MaxGroups = 4096
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.OnProblem == nil {
		cfg.OnProblem = func(BuildProblem, bool) {}
	}
	if cfg.OnLabels == nil {
		cfg.OnLabels = func(mesh.LabelFault, bool) {}
	}
	cp := &ControlPlane{cfg: cfg, wake: make(chan struct{}, 1), wanted: map[Group]struct{}{}}
	cfg.XDS.Groups, cfg.XDS.OnSubscribe = groupsOf, cp.want
	var err error
	cp.server, err = server.New(cfg.XDS)
	return cp, err
}

// Server is the xDS server, to register with a gRPC server, and to read.
func (cp *ControlPlane) Server() *server.Server { return cp.server }

// Close ends the xDS server. Run must have returned.
func (cp *ControlPlane) Close() { cp.server.Close() }

// BuildStatus is what was built last, and what could not be.
func (cp *ControlPlane) BuildStatus() BuildStatus {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	return cp.status
}

// Ready says why nothing can be served yet, or nil.
func (cp *ControlPlane) Ready() error {
	if cp.BuildStatus().Builds == 0 {
		return errors.New("no configuration has been built yet")
	}
	return nil
}

// want asks for a group, from any goroutine, without waiting.
func (cp *ControlPlane) want(_ server.Node, _, group string) {
	g, err := ParseGroup(group)
	if err != nil {
		return // groups are named by groupsOf only, whose names parse
	}
	cp.mu.Lock()
	cp.wanted[g] = struct{}{}
	cp.mu.Unlock()
	select {
	case cp.wake <- struct{}{}:
	default:
	}
}

func (cp *ControlPlane) takeWanted() map[Group]struct{} {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	out := cp.wanted
	cp.wanted = map[Group]struct{}{}
	return out
}

// Run builds and publishes until ctx ends.
func (cp *ControlPlane) Run(ctx context.Context) error {
	changes, cancel := cp.cfg.Source.Subscribe()
	defer cancel()
	l := newLoop(cp, changes)
	defer l.stop()
	if k := cp.cfg.SessionKeys; k != nil {
		var stop func()
		l.keysChanged, stop = k.Changes()
		defer stop()
	}
	return l.run(ctx)
}
