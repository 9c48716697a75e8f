// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

func (s *Spool) open() (err error) {
	if s.lock, err = os.OpenFile(filepath.Join(s.config.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("spool: %s is in use by another process: %w", s.config.Dir, err)
	}
	if s.ackFile, err = os.OpenFile(filepath.Join(s.config.Dir, "acked"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.acked = max(readAck(s.ackFile), 1)
	s.next = s.acked
	paths, err := filepath.Glob(filepath.Join(s.config.Dir, "*"+segmentSuffix))
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	slices.Sort(paths)
	for _, p := range paths {
		if err := s.recover(p); err != nil {
			return err
		}
	}
	s.given = s.acked
	s.rewind()
	s.stats.Recovered = s.waiting()
	if s.stats.Recovered > 0 {
		s.signal()
	}
	return nil
}

// recover takes over one segment of an earlier run, or removes it where nothing
// in it is wanted.
func (s *Spool) recover(path string) error {
	g, torn, err := recoverSegment(path)
	if err != nil {
		return err
	}
	if torn {
		s.stats.Torn++
	}
	if g.path == "" || g.count == 0 || g.end() <= s.acked || g.first < s.next && len(s.segments) > 0 {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		return nil
	}
	from := max(s.next, s.acked)
	if g.first > from && len(s.segments) > 0 || g.first > s.acked && len(s.segments) == 0 {
		s.lost = append(s.lost, span{from, g.first}) // numbers that no file holds
	}
	s.segments = append(s.segments, g)
	s.next = g.end()
	return nil
}

// readAck reads the acknowledged position: a number and its checksum.
func readAck(f *os.File) uint64 {
	var b [12]byte
	if _, err := f.ReadAt(b[:], 0); err != nil || crc32.Checksum(b[:8], castagnoli) != binary.BigEndian.Uint32(b[8:]) {
		return 0
	}
	return binary.BigEndian.Uint64(b[:])
}

// writeAck keeps the position. It need not be synced: an older one only makes
// records be sent again.
func (s *Spool) writeAck() {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:], s.acked)
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
	if _, err := s.ackFile.WriteAt(b[:], 0); err != nil {
		s.stats.Error = err.Error()
	}
}

// HasRecords reports whether a spool's folder may hold records, without opening it.
func HasRecords(dir string) bool {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	return err == nil && len(paths) > 0
}
