// SPDX-License-Identifier: Apache-2.0

package lake

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strconv"
	"strings"
)

// A log file is a generation: walMagic, then entries. An entry is the length of
// its payload, a CRC of both, and the payload, whose first byte is its kind.
const (
	walMagic     = "OTRLAKE1"
	entryHeader  = 8
	maxEntry     = 64 << 20
	kindSeen     = 1 // what was stored before this generation, of one sender
	kindBatch    = 2
	walSuffix    = ".wal"
	maxNameBytes = 1024
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is what one Append stored. Records point into the entry's bytes.
type batch struct {
	sender   sender
	sequence uint64
	at       int64 // unix nanoseconds of its arrival
	records  [][]byte
}

// sender is one process of one sidecar.
type sender struct{ node, boot string }

func appendEntry(dst []byte, payload func([]byte) []byte) []byte {
	start := len(dst)
	dst = payload(append(dst, make([]byte, entryHeader)...))
	e := dst[start:]
	binary.BigEndian.PutUint32(e, uint32(len(e)-entryHeader))
	binary.BigEndian.PutUint32(e[4:], entrySum(e))
	return dst
}

// entrySum is the CRC of an entry's length and payload.
func entrySum(e []byte) uint32 {
	return crc32.Update(crc32.Checksum(e[:4], castagnoli), castagnoli, e[entryHeader:])
}

func appendBatch(dst []byte, b *batch) []byte {
	return appendEntry(dst, func(dst []byte) []byte {
		dst = append(dst, kindBatch)
		dst = appendBytes(dst, []byte(b.sender.node))
		dst = appendBytes(dst, []byte(b.sender.boot))
		dst = binary.AppendUvarint(dst, b.sequence)
		dst = binary.AppendVarint(dst, b.at)
		dst = binary.AppendUvarint(dst, uint64(len(b.records)))
		for _, r := range b.records {
			dst = appendBytes(dst, r)
		}
		return dst
	})
}

func appendSeen(dst []byte, s sender, st seenState) []byte {
	return appendEntry(dst, func(dst []byte) []byte {
		dst = append(dst, kindSeen)
		dst = appendBytes(dst, []byte(s.node))
		dst = appendBytes(dst, []byte(s.boot))
		dst = binary.AppendUvarint(dst, st.sequence)
		return binary.AppendVarint(dst, st.at)
	})
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

var errEntry = errors.New("a log entry is malformed")

// fields reads the parts of a payload; after the first bad one all are empty.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) bytes() []byte {
	n, k := binary.Uvarint(f.b)
	if k <= 0 || n > uint64(len(f.b)-k) {
		f.b, f.bad = nil, true
		return nil
	}
	v := f.b[k : k+int(n) : k+int(n)]
	f.b = f.b[k+int(n):]
	return v
}

func (f *fields) uint() uint64 {
	n, k := binary.Uvarint(f.b)
	if k <= 0 {
		f.b, f.bad = nil, true
		return 0
	}
	f.b = f.b[k:]
	return n
}

func (f *fields) int() int64 {
	n, k := binary.Varint(f.b)
	if k <= 0 {
		f.b, f.bad = nil, true
		return 0
	}
	f.b = f.b[k:]
	return n
}

func decodeSeen(p []byte) (s sender, st seenState, err error) {
	f := fields{b: p[1:]}
	s = sender{string(f.bytes()), string(f.bytes())}
	st = seenState{sequence: f.uint(), at: f.int()}
	if f.bad {
		err = errEntry
	}
	return s, st, err
}

func decodeBatch(p []byte) (b batch, err error) {
	f := fields{b: p[1:]}
	b.sender = sender{string(f.bytes()), string(f.bytes())}
	b.sequence, b.at = f.uint(), f.int()
	n := f.uint()
	if n > uint64(len(f.b)) { // every record has a length byte at least
		return b, errEntry
	}
	b.records = make([][]byte, 0, n)
	for range n {
		b.records = append(b.records, f.bytes())
	}
	if f.bad {
		err = errEntry
	}
	return b, err
}

// scan reads a log and calls f with each whole entry's payload, which is valid
// until f returns. It reports the bytes up to the end of the last whole entry. A
// damaged entry ends the log: what follows cannot be trusted to be entries, as
// they hold whatever was tapped.
func scan(r io.Reader, f func(payload []byte) error) (size int64, err error) {
	in := bufio.NewReaderSize(r, 256<<10)
	magic := make([]byte, len(walMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != walMagic {
		return 0, nil // it was cut before it held anything
	}
	size = int64(len(walMagic))
	var entry bytes.Buffer
	for {
		var h [entryHeader]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return size, nil
		}
		n := binary.BigEndian.Uint32(h[:])
		if n == 0 || n > maxEntry {
			return size, nil
		}
		entry.Reset()
		entry.Write(h[:])
		// The buffer grows with what is there, not with what the length says.
		if _, err := io.CopyN(&entry, in, int64(n)); err != nil {
			return size, nil
		}
		e := entry.Bytes()
		if entrySum(e) != binary.BigEndian.Uint32(h[4:]) {
			return size, nil
		}
		if err := f(e[entryHeader:]); err != nil {
			return size, err
		}
		size += int64(len(e))
	}
}

func walPath(dir string, generation uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", generation, walSuffix))
}

func generationOf(path string) (uint64, error) {
	name, _ := strings.CutSuffix(filepath.Base(path), walSuffix)
	n, err := strconv.ParseUint(name, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: not the name of a log", path)
	}
	return n, nil
}
