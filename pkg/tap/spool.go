// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// Policy says what a full spool drops.
type Policy uint8

// The policies.
const (
	DropOldest Policy = iota // the oldest segment, to make room
	DropNewest               // what comes
)

// SpoolConfig describes a spool on disk.
type SpoolConfig struct {
	Dir      string // made with mode 0700; one process at a time
	MaxBytes int64  // of all segments; 0 means DefaultSpoolBytes
	Policy   Policy
	// SyncEvery and SyncBytes bound what a crash of the machine can lose: data is
	// synced when either is reached. Zero values mean one second and 4 MiB. A crash
	// of the process alone loses what was not flushed: one batch of the Writer.
	SyncEvery time.Duration
	SyncBytes int64
}

// Defaults of a spool.
const (
	DefaultSpoolBytes = 256 << 20
	defaultSyncEvery  = time.Second
	defaultSyncBytes  = 4 << 20
	spoolSegments     = 16 // that the cap is divided into
	minSegment        = 64 << 10
	maxSegment        = 16 << 20
	writeBuffer       = 1 << 20
	nextBytes         = 1 << 20 // of one batch of Next
)

// Spool is a bounded queue of records on disk, at least once. Append and Flush
// put in; Next and Ack take out (the agent does). Its methods may be called from
// different goroutines, Next from one at a time.
//
// Records are numbered from 1, through restarts. What was given out and not
// acknowledged when the process ended is given out again by the next.
type Spool struct {
	config  SpoolConfig
	segSize int64
	lock    *os.File
	ackFile *os.File
	wake    chan struct{}

	mu       sync.Mutex // guards the rest
	segments []segment  // the last one is open for writing
	file     *os.File   // of the last segment, nil when none is open
	buf      []byte     // frames not yet written to file
	bufCount uint64
	dirty    int64 // bytes written and not synced
	synced   time.Time
	read     position
	next     uint64 // number of the next record to come
	given    uint64 // all before it were given out
	acked    uint64 // all before it were acknowledged
	lost     []span // given out of order: numbers that were dropped
	closed   bool
	stats    SpoolStats
}

// position is where Next goes on.
type position struct {
	segment uint64 // its first record
	offset  int64
	number  uint64 // of the record at offset
}

// span is a half-open range of record numbers.
type span struct{ from, to uint64 }

// SpoolStats are the counts of this run. Appended + Recovered = Acked + Dropped +
// Waiting, at any time.
type SpoolStats struct {
	Appended  uint64 // accepted by Append
	Recovered uint64 // found at the start, not acknowledged
	Acked     uint64
	Dropped   uint64 // by policy, or because the disk failed after they were accepted
	Refused   uint64 // by Append: the spool or the disk was full; not in Appended
	Waiting   uint64 // neither acknowledged nor dropped
	Bytes     int64  // on disk
	Torn      uint64 // segments that were cut at the start
	Error     string // the last failure
}

// OpenSpool opens a spool and recovers what an earlier run left.
func OpenSpool(c SpoolConfig) (*Spool, error) {
	if c.MaxBytes <= 0 {
		c.MaxBytes = DefaultSpoolBytes
	}
	if c.SyncEvery <= 0 {
		c.SyncEvery = defaultSyncEvery
	}
	if c.SyncBytes <= 0 {
		c.SyncBytes = defaultSyncBytes
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{config: c, wake: make(chan struct{}, 1), synced: time.Now()}
	s.segSize = min(max(c.MaxBytes/spoolSegments, minSegment), maxSegment)
	if err := s.open(); err != nil {
		if s.lock != nil {
			err = errors.Join(err, s.lock.Close())
		}
		if s.ackFile != nil {
			err = errors.Join(err, s.ackFile.Close())
		}
		return nil, err
	}
	return s, nil
}

// rewind puts the reading position to the first record that was not given out.
func (s *Spool) rewind() {
	s.read = position{}
	for _, g := range s.segments {
		if g.end() > s.given {
			s.read = startOf(&g)
			return
		}
	}
}

func startOf(g *segment) position {
	return position{segment: g.first, offset: int64(segmentHeader), number: g.first}
}

// waiting counts the records that are neither acknowledged nor dropped.
func (s *Spool) waiting() uint64 {
	n := s.next - s.acked
	for _, l := range s.lost {
		n -= l.to - l.from
	}
	return n
}

// Append takes a record. An error means that it was not taken.
func (s *Spool) Append(rec []byte) error {
	if len(rec) > MaxRecordBytes {
		return fmt.Errorf("spool: a record of %d bytes, at most %d are allowed", len(rec), MaxRecordBytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.append(rec)
	if err != nil {
		s.stats.Refused++
		s.stats.Error = err.Error()
	}
	return err
}

var (
	errSpoolClosed = errors.New("spool: closed")
	errSpoolFull   = errors.New("spool: full")
)

func (s *Spool) append(rec []byte) error {
	if s.closed {
		return errSpoolClosed
	}
	size := int64(frameHeader + len(rec))
	if len(s.buf) > 0 && len(s.buf)+int(size) > writeBuffer {
		if err := s.write(); err != nil {
			return err
		}
	}
	if err := s.room(size); err != nil {
		return err
	}
	s.buf = appendFrame(s.buf, rec)
	s.bufCount++
	s.next++
	s.stats.Appended++
	return nil
}

// room makes sure that a segment with room is open and that the cap holds.
func (s *Spool) room(size int64) error {
	if s.file != nil {
		if last := s.segments[len(s.segments)-1]; last.size+int64(len(s.buf))+size > s.segSize && last.count+s.bufCount > 0 {
			if err := s.roll(); err != nil {
				return err
			}
		}
	}
	for s.bytes()+size > s.config.MaxBytes {
		if s.config.Policy == DropNewest || len(s.segments) == 0 || len(s.segments) == 1 && s.file != nil {
			return errSpoolFull
		}
		s.dropOldest()
	}
	if s.file != nil {
		return nil
	}
	f, g, err := createSegment(s.config.Dir, s.next)
	if err != nil {
		return err
	}
	s.file = f
	s.segments = append(s.segments, g)
	return nil
}

func (s *Spool) bytes() int64 {
	n := int64(len(s.buf))
	for i := range s.segments {
		n += s.segments[i].size
	}
	return n
}

// roll writes, syncs and closes the open segment.
func (s *Spool) roll() error {
	if err := s.write(); err != nil {
		return err
	}
	err := s.sync()
	s.file.Close()
	s.file = nil
	return err
}

// dropOldest removes a segment. Records of it that were given out are the
// receiver's to acknowledge; the others are lost and counted.
func (s *Spool) dropOldest() {
	g := s.segments[0]
	s.segments = s.segments[1:]
	os.Remove(g.path)
	if from := max(g.first, s.given); from < g.end() {
		s.stats.Dropped += g.end() - from
		s.lose(span{from, g.end()})
		s.given = g.end()
		s.rewind()
	}
}

// lose notes numbers that will never be given out.
func (s *Spool) lose(l span) {
	if l.from = max(l.from, s.acked); l.from >= l.to {
		return
	}
	i, _ := slices.BinarySearchFunc(s.lost, l, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	s.lost = slices.Insert(s.lost, i, l)
	if i > 0 && s.lost[i-1].to == l.from {
		s.lost[i-1].to = l.to
		s.lost = slices.Delete(s.lost, i, i+1)
	}
}

// write hands the buffer to the operating system. What cannot be written is
// dropped, and the segment ended behind its last whole frame.
func (s *Spool) write() error {
	if len(s.buf) == 0 {
		return nil
	}
	g := &s.segments[len(s.segments)-1]
	_, err := s.file.WriteAt(s.buf, g.size)
	if err != nil {
		err = errors.Join(fmt.Errorf("spool: %w", err), s.file.Truncate(g.size), s.file.Close())
		s.file = nil
		s.stats.Dropped += s.bufCount
		s.stats.Error = err.Error()
		from := g.end()
		s.lose(span{from, from + s.bufCount})
		if g.count == 0 {
			os.Remove(g.path)
			s.segments = s.segments[:len(s.segments)-1]
		}
		s.buf, s.bufCount = s.buf[:0], 0
		return err
	}
	g.size += int64(len(s.buf))
	g.count += s.bufCount
	s.dirty += int64(len(s.buf))
	s.buf, s.bufCount = s.buf[:0], 0
	if s.read == (position{}) {
		s.rewind()
	}
	s.signal()
	return nil
}

func (s *Spool) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Flush hands what was appended to the operating system, and syncs by the
// configured bounds. The Writer calls it after each batch and at least every
// 200 ms.
func (s *Spool) Flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if err := s.write(); err != nil {
		return err
	}
	if s.dirty >= s.config.SyncBytes || s.dirty > 0 && time.Since(s.synced) >= s.config.SyncEvery {
		return s.sync()
	}
	return nil
}

func (s *Spool) sync() error {
	s.synced = time.Now()
	if s.dirty == 0 || s.file == nil {
		return nil
	}
	s.dirty = 0
	if err := s.file.Sync(); err != nil {
		s.stats.Error = err.Error()
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Pending is the number of records that are not acknowledged.
func (s *Spool) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.waiting())
}

// Stats are the counts so far.
func (s *Spool) Stats() SpoolStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Waiting, st.Bytes = s.waiting(), s.bytes()
	return st
}

// Close writes and syncs what was appended. What is not acknowledged stays on
// disk for the next run.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	err := s.write()
	if s.file != nil {
		err = errors.Join(err, s.sync(), s.file.Close())
		s.file = nil
	}
	s.closed = true
	s.signal()
	return errors.Join(err, s.ackFile.Close(), s.lock.Close())
}
