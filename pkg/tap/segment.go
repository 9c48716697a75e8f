// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/statefile"
)

// A segment is a file of frames. It begins with segmentMagic and the number of
// its first record; a frame is the record's length, a CRC of length and record,
// and the record. Numbers are big-endian.
const (
	segmentMagic  = "OTRSPL1\n"
	segmentHeader = len(segmentMagic) + 8
	frameHeader   = 8
	segmentSuffix = ".spool"
)

// MaxRecordBytes bounds one record: two bodies, two heads and the rest.
const MaxRecordBytes = 2*MaxBodyBytes + 512<<10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errFrame = errors.New("spool: a frame is damaged or incomplete")

// appendFrame appends a record as a frame.
func appendFrame(dst, rec []byte) []byte {
	var h [frameHeader]byte
	binary.BigEndian.PutUint32(h[:], uint32(len(rec)))
	binary.BigEndian.PutUint32(h[4:], frameSum(h[:4], rec))
	return append(append(dst, h[:]...), rec...)
}

func frameSum(length, rec []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, rec)
}

// readFrame reads the frame at the front of b. It is errFrame where the frame is
// not whole and unharmed; what follows such a frame cannot be trusted to be
// frames, as records hold whatever was tapped.
func readFrame(b []byte) (rec, rest []byte, err error) {
	if len(b) < frameHeader {
		return nil, nil, errFrame
	}
	n := binary.BigEndian.Uint32(b)
	if n > MaxRecordBytes || uint64(n) > uint64(len(b)-frameHeader) {
		return nil, nil, errFrame
	}
	rec = b[frameHeader : frameHeader+int(n) : frameHeader+int(n)]
	if frameSum(b[:4], rec) != binary.BigEndian.Uint32(b[4:]) {
		return nil, nil, errFrame
	}
	return rec, b[frameHeader+int(n):], nil
}

// segment is one file of the spool.
type segment struct {
	path  string
	first uint64 // number of its first record
	count uint64 // records in it
	size  int64  // bytes that hold whole frames
}

func (s *segment) end() uint64 { return s.first + s.count }

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", first, segmentSuffix))
}

// recoverSegment reads a segment of an earlier run and cuts it behind its last
// whole frame. Nothing is trusted: not its name, not its length.
func recoverSegment(path string) (s segment, torn bool, err error) {
	name, _ := strings.CutSuffix(filepath.Base(path), segmentSuffix)
	first, err := strconv.ParseUint(name, 16, 64)
	if err != nil {
		return s, false, fmt.Errorf("spool: %s: not the name of a segment", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return s, false, fmt.Errorf("spool: %w", err)
	}
	if len(b) < segmentHeader || !bytes.HasPrefix(b, []byte(segmentMagic)) ||
		binary.BigEndian.Uint64(b[len(segmentMagic):]) != first {
		return s, true, nil // cut before it held anything
	}
	s = segment{path: path, first: first, size: int64(segmentHeader)}
	for rest := b[segmentHeader:]; len(rest) > 0; {
		rec, next, err := readFrame(rest)
		if err != nil {
			torn = true
			break
		}
		s.count++
		s.size += int64(frameHeader + len(rec))
		rest = next
	}
	if torn {
		if err := os.Truncate(path, s.size); err != nil {
			return s, true, fmt.Errorf("spool: %w", err)
		}
	}
	return s, torn, nil
}

// createSegment makes the file of a segment that starts at first.
func createSegment(dir string, first uint64) (*os.File, segment, error) {
	s := segment{path: segmentPath(dir, first), first: first, size: int64(segmentHeader)}
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, s, fmt.Errorf("spool: %w", err)
	}
	h := binary.BigEndian.AppendUint64([]byte(segmentMagic), first)
	if _, err := f.Write(h); err != nil {
		return nil, s, errors.Join(fmt.Errorf("spool: %w", err), f.Close(), os.Remove(s.path))
	}
	// Without this a crash of the machine may lose a file whose data was synced.
	_ = statefile.SyncFolder(dir) // where that cannot be done it is a risk, and no reason not to spool
	return f, s, nil
}

// readRecords reads whole records of a segment from an offset on, about limit
// bytes of them and one at least, and the offset behind them. The segment holds
// whole frames up to size.
func readRecords(path string, offset, size int64, limit int) (recs [][]byte, next int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	var head [frameHeader]byte
	if _, err := f.ReadAt(head[:], offset); err != nil {
		return nil, 0, err
	}
	first := int64(frameHeader) + int64(binary.BigEndian.Uint32(head[:]))
	n := min(size-offset, max(int64(limit), first))
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, n), b); err != nil {
		return nil, 0, err
	}
	for next = offset; len(b) > 0; {
		rec, rest, err := readFrame(b)
		if err != nil && len(recs) > 0 && next+int64(len(b)) < size {
			break // the piece ended inside a frame
		}
		if err != nil {
			return recs, next, err
		}
		recs = append(recs, rec)
		next += int64(frameHeader + len(rec))
		b = rest
	}
	return recs, next, nil
}
