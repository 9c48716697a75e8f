// SPDX-License-Identifier: Apache-2.0

package lake

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/outrigger-mesh/outrigger/pkg/statefile"
)

// Config says where a lake is and when it turns its log into files.
type Config struct {
	Dir    string
	MaxAge time.Duration // of rows in the log; 0 means 30 s
	// MaxBytes of one generation of the log; 0 means 64 MiB.
	MaxBytes int64
	// MaxLogBytes bounds all generations: beyond it Append refuses, which happens
	// where files cannot be written. 0 means 16 generations.
	MaxLogBytes int64
	Logger      *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

const (
	defaultAge   = 30 * time.Second
	defaultBytes = 64 << 20
	generations  = 16
	retryAfter   = 5 * time.Second
	seenFor      = 24 * time.Hour // a sender is remembered
	maxSenders   = 100_000
)

// ErrInvalid is wrapped by the error of a batch that can never be stored.
var ErrInvalid = errors.New("invalid batch")

// ErrFull is wrapped by the error of a batch that cannot be stored now, because
// the log is as large as it may be.
var ErrFull = errors.New("the lake's log is full")

// Lake stores tapped traffic. Its methods may be called from any goroutine.
type Lake struct {
	config Config
	log    *slog.Logger
	turnMu sync.Mutex   // held while generations are turned into files
	gate   sync.RWMutex // read-held from write to sync: a generation ends between batches
	syncMu sync.Mutex   // held while the log is synced; taken before mu
	due    chan struct{}
	codec  zstd.Codec // shared: its encoders are large

	mu      sync.Mutex // guards the rest
	lock    *os.File
	current *generation // nil: to be opened, not before retry
	done    []*generation
	number  uint64 // of the next generation
	retry   time.Time
	seen    map[sender]seenState
	closed  bool
	stats   Stats
}

// seenState is the last batch stored of a sender.
type seenState struct {
	sequence uint64
	at       int64
}

// generation is one log file.
type generation struct {
	number  uint64
	path    string
	since   time.Time
	batches int

	file   *os.File // open while it is the current one
	size   int64
	synced int64 // bytes that are durable
	failed error // a sync failed: nothing more may be appended
}

// Stats are the counts of this run, and what waits.
type Stats struct {
	Batches    uint64 `json:"batches"`    // stored
	Records    uint64 `json:"records"`    // stored
	Duplicates uint64 `json:"duplicates"` // batches that had been stored before
	Refused    uint64 `json:"refused"`    // batches, with an error
	Damaged    uint64 `json:"damaged"`    // records that were no tap records
	Files      uint64 `json:"files"`      // written
	Rows       uint64 `json:"rows"`       // in them
	LogBytes   int64  `json:"logBytes"`   // not yet in files
	Error      string `json:"error,omitempty"`
}

// Open opens a lake and takes over what an earlier run left in the log. A disk
// that is full or read-only is no error here: Append will say so until it is
// better.
func Open(c Config) (*Lake, error) {
	if c.Dir == "" {
		return nil, errors.New("lake: no folder")
	}
	if c.MaxAge <= 0 {
		c.MaxAge = defaultAge
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = defaultBytes
	}
	if c.MaxLogBytes <= 0 {
		c.MaxLogBytes = generations * c.MaxBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if st, err := os.Stat(c.Dir); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("lake: %s is not a folder", c.Dir)
	}
	l := &Lake{config: c, log: c.Logger, seen: map[sender]seenState{}, due: make(chan struct{}, 1),
		codec: zstd.Codec{Level: zstd.SpeedDefault, Concurrency: 1}}
	if err := l.recover(); err != nil {
		if l.lock != nil {
			err = errors.Join(err, l.lock.Close())
		}
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.begin(); err != nil {
		l.log.Error("lake: nothing can be stored", "error", err)
	}
	return l, nil
}

func (l *Lake) walDir() string { return filepath.Join(l.config.Dir, "wal") }

// recover finds the logs of an earlier run and what they say was stored.
func (l *Lake) recover() error {
	if err := os.MkdirAll(l.walDir(), 0o700); err != nil {
		return l.tolerate(err)
	}
	lock, err := os.OpenFile(filepath.Join(l.walDir(), "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		if err := l.tolerate(err); err != nil {
			return err
		}
	} else {
		l.lock = lock
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return fmt.Errorf("lake: %s is in use by another process: %w", l.config.Dir, err)
		}
	}
	paths, err := filepath.Glob(filepath.Join(l.walDir(), "*"+walSuffix))
	if err != nil {
		return fmt.Errorf("lake: %w", err)
	}
	slices.Sort(paths) // by generation
	for _, p := range paths {
		n, err := generationOf(p)
		if err != nil {
			return fmt.Errorf("lake: %w", err)
		}
		g := &generation{number: n, path: p, since: l.config.Now()}
		if g.size, g.batches, err = readSeen(p, l.seen); err != nil {
			return fmt.Errorf("lake: %w", err)
		}
		l.done = append(l.done, g)
		l.number = n + 1
	}
	return nil
}

// tolerate keeps a lake that cannot be written to from keeping the control plane
// from starting.
func (l *Lake) tolerate(err error) error {
	for _, e := range []error{syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, fs.ErrPermission} {
		if errors.Is(err, e) {
			l.stats.Error = err.Error()
			return nil
		}
	}
	return fmt.Errorf("lake: %w", err)
}

// readSeen adds to seen what a log says.
func readSeen(path string, seen map[sender]seenState) (size int64, batches int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	size, err = scan(f, func(p []byte) error {
		switch p[0] {
		case kindSeen:
			s, st, err := decodeSeen(p)
			if err == nil && st.sequence > seen[s].sequence {
				seen[s] = st
			}
		case kindBatch:
			b, err := decodeBatch(p)
			if err == nil && b.sequence > seen[b.sender].sequence {
				seen[b.sender] = seenState{b.sequence, b.at}
				batches++
			}
		}
		return nil
	})
	return size, batches, err
}

// begin opens a new generation, whose log starts with what was stored before it.
func (l *Lake) begin() error {
	now := l.config.Now()
	if now.Before(l.retry) {
		return errors.New(l.stats.Error)
	}
	// Numbers are times, so that they do not start again where the log was removed.
	number := max(l.number, uint64(now.UnixNano()))
	g := &generation{number: number, path: walPath(l.walDir(), number), since: now}
	err := l.create(g, now)
	if err != nil {
		l.retry = now.Add(retryAfter)
		l.stats.Error = err.Error()
		return err
	}
	l.number = number + 1
	l.current = g
	return nil
}

func (l *Lake) create(g *generation, now time.Time) (err error) {
	if err := os.MkdirAll(l.walDir(), 0o700); err != nil {
		return fmt.Errorf("lake: %w", err)
	}
	if g.file, err = os.OpenFile(g.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return fmt.Errorf("lake: %w", err)
	}
	b := []byte(walMagic)
	for s, st := range l.seen {
		if now.UnixNano()-st.at > int64(seenFor) || len(l.seen) > maxSenders && now.UnixNano()-st.at > int64(time.Hour) {
			delete(l.seen, s)
			continue
		}
		b = appendSeen(b, s, st)
	}
	_, err = g.file.Write(b)
	if err == nil {
		err = errors.Join(g.file.Sync(), statefile.SyncFolder(l.walDir()))
	}
	if err != nil {
		return fmt.Errorf("lake: %w", errors.Join(err, g.file.Close(), os.Remove(g.path)))
	}
	g.size, g.synced = int64(len(b)), int64(len(b))
	return nil
}

// Append stores a batch and returns when it is durable. The sequence grows within
// a node's boot; a batch that was stored before is not stored again. Records are
// tap records (tap.Record.Append); they belong to the caller again afterwards.
//
// Errors wrap ErrInvalid where trying again is no use, ErrFull and the system's
// errors where it is.
func (l *Lake) Append(ctx context.Context, node, boot string, seq uint64, records [][]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := batch{sender: sender{node, boot}, sequence: seq, records: records}
	l.gate.RLock()
	g, end, err := l.write(&b)
	if err == nil && g != nil {
		err = l.sync(g, end, &b)
	}
	l.gate.RUnlock()
	if err != nil {
		l.mu.Lock()
		l.stats.Refused++
		l.stats.Error = err.Error()
		l.mu.Unlock()
		return err
	}
	return nil
}

// size is a bound of the bytes that the batch takes in the log.
func (b *batch) size() int {
	n := entryHeader + len(b.sender.node) + len(b.sender.boot) + 6*binary.MaxVarintLen64
	for _, r := range b.records {
		n += len(r) + binary.MaxVarintLen64
	}
	return n
}

func (b *batch) check() error {
	size := b.size()
	switch {
	case b.sender.node == "" || len(b.sender.node) > maxNameBytes || len(b.sender.boot) > maxNameBytes:
		return fmt.Errorf("lake: %w: a sender needs a node of at most %d bytes", ErrInvalid, maxNameBytes)
	case b.sequence == 0:
		return fmt.Errorf("lake: %w: the sequence of a batch is at least 1", ErrInvalid)
	case size > maxEntry:
		return fmt.Errorf("lake: %w: %d bytes, at most %d are allowed", ErrInvalid, size, maxEntry)
	}
	return nil
}

// write appends a batch to the log; g is nil where it is there already.
func (l *Lake) write(b *batch) (g *generation, end int64, err error) {
	if err := b.check(); err != nil {
		return nil, 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, errors.New("lake: closed")
	}
	if b.sequence <= l.seen[b.sender].sequence {
		l.stats.Duplicates++
		return nil, 0, nil
	}
	if n := l.logBytes(); n >= l.config.MaxLogBytes {
		return nil, 0, fmt.Errorf("lake: %w: %d bytes wait to become files: %s", ErrFull, n, l.stats.Error)
	}
	if l.current == nil {
		if err := l.begin(); err != nil {
			return nil, 0, err
		}
	}
	g = l.current
	if g.failed != nil || g.size >= l.config.MaxBytes {
		select {
		case l.due <- struct{}{}:
		default:
		}
	}
	if g.failed != nil {
		return nil, 0, fmt.Errorf("lake: the log is being replaced: %w", g.failed)
	}
	b.at = l.config.Now().UnixNano()
	e := appendBatch(make([]byte, 0, b.size()), b)
	if _, err := g.file.WriteAt(e, g.size); err != nil {
		return nil, 0, fmt.Errorf("lake: %w", errors.Join(err, g.file.Truncate(g.size)))
	}
	g.size += int64(len(e))
	return g, g.size, nil
}

// sync makes the log durable up to end. Batches that wait for each other here
// share one sync.
func (l *Lake) sync(g *generation, end int64, b *batch) error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	size, file, err := g.size, g.file, g.failed
	need := g.synced < end
	l.mu.Unlock()
	if need && err == nil {
		err = file.Sync()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		// What the system has kept of it is unknown: nothing more goes into this log,
		// and what was not durable leaves it.
		g.failed = err
		g.size = min(g.size, g.synced)
		return fmt.Errorf("lake: %w", errors.Join(err, file.Truncate(g.size)))
	}
	g.synced = max(g.synced, size)
	g.batches++
	if b.sequence > l.seen[b.sender].sequence {
		l.seen[b.sender] = seenState{b.sequence, b.at}
	}
	l.stats.Batches++
	l.stats.Records += uint64(len(b.records))
	return nil
}

// end closes the current generation; it waits to be turned into files.
func (l *Lake) end() {
	g := l.current
	l.current = nil
	g.file.Close() // all that was acknowledged was synced
	g.file = nil
	l.done = append(l.done, g)
}

func (l *Lake) logBytes() int64 {
	n := int64(0)
	if l.current != nil {
		n = l.current.size
	}
	for _, g := range l.done {
		n += g.size
	}
	return n
}

// Run turns the log into files by age and size, until ctx ends; Close does the
// rest.
func (l *Lake) Run(ctx context.Context) error {
	period := min(time.Second, l.config.MaxAge/4+time.Millisecond)
	t := time.NewTicker(period)
	defer t.Stop()
	var failed time.Time
	for {
		if now := l.config.Now(); now.Sub(failed) >= retryAfter {
			if err := l.roll(false); err != nil {
				failed = now
				l.log.Error("lake: files could not be written; the log keeps them", "error", err)
			}
		}
		select {
		case <-t.C:
		case <-l.due:
		case <-ctx.Done():
			return nil
		}
	}
}

// Flush turns everything that was appended into files, now.
func (l *Lake) Flush() error { return l.roll(true) }

// roll ends the current generation where it is due, and turns all that are ended.
func (l *Lake) roll(all bool) error {
	l.turnMu.Lock()
	defer l.turnMu.Unlock()
	l.gate.Lock()
	l.mu.Lock()
	if g := l.current; g != nil && (g.failed != nil || g.batches > 0 &&
		(all || g.size >= l.config.MaxBytes || l.config.Now().Sub(g.since) >= l.config.MaxAge)) {
		l.end()
		if !l.closed {
			l.begin() // if it fails, the next Append says so
		}
	} else if g != nil && g.batches == 0 {
		g.since = l.config.Now()
	}
	done := slices.Clone(l.done)
	l.mu.Unlock()
	l.gate.Unlock()
	for _, g := range done {
		if err := l.turn(g); err != nil {
			l.mu.Lock()
			l.stats.Error = err.Error()
			l.mu.Unlock()
			return err
		}
	}
	return nil
}

// Stats are the counts so far.
func (l *Lake) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.LogBytes = l.logBytes()
	return s
}

// Close turns what is left into files. What cannot be turned stays in the log for
// the next run.
func (l *Lake) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	err := l.roll(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current != nil && l.current.batches == 0 {
		// Keeps what it says was stored: the next run needs it.
		err = errors.Join(err, l.current.file.Close())
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	return err
}
