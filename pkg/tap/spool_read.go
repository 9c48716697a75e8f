// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"context"
	"io"
	"os"
	"slices"
)

// Next waits for records and returns a batch, and its sequence: the number of its
// last record. It returns io.EOF when the spool is closed.
func (s *Spool) Next(ctx context.Context) (records [][]byte, sequence uint64, err error) {
	for {
		records, sequence, err = s.take()
		if err != nil || len(records) > 0 {
			return records, sequence, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

func (s *Spool) take() ([][]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && s.read != (position{}) {
		i := slices.IndexFunc(s.segments, func(g segment) bool { return g.first == s.read.segment })
		if i < 0 {
			s.rewind()
			continue
		}
		g := s.segments[i]
		if s.read.offset >= g.size {
			if i+1 == len(s.segments) {
				return nil, 0, nil // up to date
			}
			s.read = startOf(&s.segments[i+1])
			continue
		}
		recs, next, err := readRecords(g.path, s.read.offset, g.size, nextBytes)
		number := s.read.number
		s.read.offset, s.read.number = max(next, s.read.offset), number+uint64(len(recs))
		if err != nil {
			s.unreadable(i, err)
		}
		// After a restart a segment may begin with records that were acknowledged.
		if skip := min(max(s.given, number)-number, uint64(len(recs))); skip > 0 {
			recs, number = recs[skip:], number+skip
		}
		if len(recs) == 0 {
			continue
		}
		s.given = number + uint64(len(recs))
		s.signal()
		return recs, s.given - 1, nil
	}
	if s.closed {
		return nil, 0, io.EOF
	}
	return nil, 0, nil
}

// unreadable drops what a segment holds behind the reading position: the file was
// damaged under us.
func (s *Spool) unreadable(i int, err error) {
	g := &s.segments[i]
	s.stats.Error = err.Error()
	end := g.end()
	if i+1 == len(s.segments) && s.file != nil {
		end += s.bufCount
		s.buf, s.bufCount = s.buf[:0], 0
		s.file.Close()
		s.file = nil
	}
	if from := max(s.read.number, s.given); from < end {
		s.stats.Dropped += end - from
		s.lose(span{from, end})
	}
	g.count, g.size = s.read.number-g.first, s.read.offset
}

// Ack forgets the records up to this number and the segments that hold no others.
func (s *Spool) Ack(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence >= s.given || sequence < s.acked || s.closed {
		return
	}
	n := sequence + 1 - s.acked
	for len(s.lost) > 0 && s.lost[0].from <= sequence {
		// Spans lie wholly on one side: a batch holds no dropped record.
		l := s.lost[0]
		n -= min(l.to, sequence+1) - l.from
		if l.to > sequence+1 {
			s.lost[0].from = sequence + 1
			break
		}
		s.lost = s.lost[1:]
	}
	s.acked = sequence + 1
	s.stats.Acked += n
	s.writeAck()
	for len(s.segments) > 0 {
		g := s.segments[0]
		open := len(s.segments) == 1 && s.file != nil
		if g.end() > s.acked || open {
			break
		}
		os.Remove(g.path)
		s.segments = s.segments[1:]
		if s.read.segment == g.first {
			s.rewind()
		}
	}
}
