// SPDX-License-Identifier: Apache-2.0

package sessionkeys

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/broadcast"
	"github.com/outrigger-mesh/outrigger/pkg/statefile"
)

// Lives of a key: the default is that after which no more than 2^32 values are encrypted by
// one at 1 600 new sessions a second.
const (
	DefaultLife = 30 * 24 * time.Hour
	MinLife     = 4 * time.Second
	MaxLife     = 365 * 24 * time.Hour
)

const (
	keyBytes   = 32 // AES-256
	maxOverlap = time.Hour
)

// Config says where keys are kept and how long they live.
type Config struct {
	Dir  string        // exists
	Life time.Duration // 0: DefaultLife
	// Logger is told of changes, never of keys. Now is the wall clock; nil is time.Now.
	Logger *slog.Logger
	Now    func() time.Time
}

// Keys are the keys in force.
type Keys struct {
	// Set once.
	config  Config
	overlap time.Duration

	mu sync.Mutex
	// Guarded by mu.
	state state

	changes broadcast.Signal
}

// Open continues with the keys in the folder, or makes the first one. A file that is
// damaged, or that others can read, is an error: sessions never begin anew in silence.
func Open(c Config) (*Keys, error) {
	if c.Life == 0 {
		c.Life = DefaultLife
	}
	if c.Life < MinLife || c.Life > MaxLife {
		return nil, fmt.Errorf("life of a session key: want %s to %s, got %s", MinLife, MaxLife, c.Life)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Keys{config: c, overlap: min(maxOverlap, c.Life/4)}
	err := statefile.RemoveLeft(filepath.Join(c.Dir, fileName))
	if err != nil {
		return nil, err
	}
	if k.state, err = load(c.Dir); err != nil {
		return nil, err
	}
	_, err = k.Step(c.Now())
	return k, err
}

// Bytes are the keys one after the other, the one that encrypts first: 32 or 64 bytes. They
// must not be changed, shown or logged.
func (k *Keys) Bytes() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []byte
	for _, x := range k.state.Keys {
		out = append(out, x.Secret...)
	}
	return out
}

// Changes answers a channel that holds one when the keys have changed; stop ends that.
func (k *Keys) Changes() (changed <-chan struct{}, stop func()) { return k.changes.Subscribe() }

const (
	// maxWait bounds a wait, so that a clock that is set does no harm for long.
	maxWait = time.Minute
	// minWait bounds how often a failing disk is tried.
	minWait = 50 * time.Millisecond
)

// Run rolls keys over until ctx ends.
func (k *Keys) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := k.config.Now()
		next, err := k.Step(now)
		if err != nil {
			k.config.Logger.Error("session keys: a step that is due failed, the keys are as they were", "error", err)
			next = now.Add(time.Second)
		}
		timer.Reset(min(maxWait, max(minWait, next.Sub(now))))
	}
}

// Step does what is due, and says when something is next. After an error the keys are as
// they were. Steps that were missed while nothing ran are done one by one, each with its
// full wait.
func (k *Keys) Step(now time.Time) (next time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	after, what, next, err := k.state.step(now, k.config.Life, k.overlap)
	if err != nil || what == "" {
		return next, err
	}
	if err := save(k.config.Dir, after); err != nil {
		return now, fmt.Errorf("session keys: %w", err)
	}
	k.state = after
	k.config.Logger.Info("session keys", "key", what, "keys", len(after.Keys), "next", next)
	k.changes.Send()
	return next, nil
}

// state is all that must survive.
type state struct {
	Keys []key // as they are given out
	// RollsAt is when the second key, which is announced, becomes the first; zero where the
	// second one is on its way out, or there is none.
	RollsAt time.Time
}

type key struct {
	Secret []byte
	// Since is when it began to encrypt; zero of one that is announced.
	Since time.Time
}

// step is the state after what is due; what says it in words and is empty where nothing is.
func (s state) step(now time.Time, life, overlap time.Duration) (after state, what string, next time.Time, err error) {
	switch {
	case len(s.Keys) == 0:
		secret, err := newSecret()
		after = state{Keys: []key{{secret, now}}}
		return after, "made", now.Add(life), err
	case s.Keys[0].Since.After(now) || s.RollsAt.After(now.Add(overlap)):
		// The clock was ahead: the key must not be in force for as long as that was.
		after = state{Keys: slices.Clone(s.Keys), RollsAt: s.RollsAt}
		if after.Keys[0].Since.After(now) {
			after.Keys[0].Since = now
		}
		if next = now.Add(overlap); s.RollsAt.IsZero() {
			next = after.Keys[0].Since.Add(life)
		} else if s.RollsAt.After(next) {
			after.RollsAt = next
		}
		return after, "dated anew, as the clock was set back", next, nil
	case s.RollsAt.IsZero() && now.Before(s.Keys[0].Since.Add(life)):
		return s, "", s.Keys[0].Since.Add(life), nil
	case s.RollsAt.IsZero():
		secret, err := newSecret()
		after = state{Keys: []key{s.Keys[0], {Secret: secret}}, RollsAt: now.Add(overlap)}
		return after, "announced", after.RollsAt, err
	case now.Before(s.RollsAt):
		return s, "", s.RollsAt, nil
	}
	after = state{Keys: []key{{s.Keys[1].Secret, now}, s.Keys[0]}}
	return after, "encrypts", now.Add(life), nil
}

func newSecret() ([]byte, error) {
	b := make([]byte, keyBytes)
	_, err := rand.Read(b)
	return b, err
}

func (s state) check() error {
	if len(s.Keys) == 0 || len(s.Keys) > 2 || !s.RollsAt.IsZero() && len(s.Keys) != 2 {
		return errors.New("want one or two keys")
	}
	for i, x := range s.Keys {
		if len(x.Secret) != keyBytes {
			return fmt.Errorf("keys[%d]: want %d bytes", i, keyBytes)
		}
	}
	if s.Keys[0].Since.IsZero() {
		return errors.New("keys[0].since: is missing")
	}
	return nil
}

// String says nothing of the keys.
func (k key) String() string   { return "session key" }
func (k key) GoString() string { return k.String() }

// LogValue implements slog.LogValuer.
func (k key) LogValue() slog.Value { return slog.StringValue(k.String()) }
