// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"bytes"
	"crypto/tls"
	"slices"
)

// Session is the record layer of a connection whose handshake is done. It
// implements reactor.Transport and belongs to the loop.
type Session struct {
	conn *tls.Conn
	pipe *pipe
	gate *Gate
	info *Info
	part []byte // the beginning of a record; at first also whatever came early
}

// Info says what was negotiated and with whom. It is immutable.
func (s *Session) Info() *Info { return s.info }

// newSession takes the tls.Conn over: the goroutine has ended.
func newSession(g *Gate, c *tls.Conn, p *pipe, info *Info) *Session {
	s := &Session{conn: c, pipe: p, gate: g, info: info, part: p.sync.in}
	p.sync = nil
	if layout.ok {
		raw := rawInput(c)
		s.part = slices.Concat(raw.Bytes(), s.part)
		*raw = bytes.Buffer{}
		if hand := handshakeInput(c); hand.Len() == 0 {
			*hand = bytes.Buffer{}
		}
	}
	return s
}

// Open implements reactor.Transport.
func (s *Session) Open(dst, in []byte) (plain, reply []byte, err error) {
	switch {
	case !layout.ok:
		dst, err = s.openByRead(dst, in)
	case len(s.part) == 0:
		dst, err = s.openWhole(dst, in)
	default:
		dst, err = s.openPart(dst, in)
	}
	reply, s.pipe.out = s.pipe.out, nil // rare: key updates and alerts
	return dst, reply, err
}

// openWhole decrypts in, in place, and keeps the part of a record at its end.
func (s *Session) openWhole(dst, in []byte) ([]byte, error) {
	n := wholeRecords(in)
	if n > 0 {
		var err error
		if dst, err = s.decrypt(dst, in[:n:n]); err != nil {
			return dst, err
		}
	}
	if n < len(in) {
		s.keep(in[n:])
	}
	return dst, nil
}

// openPart completes the record that was begun.
func (s *Session) openPart(dst, in []byte) ([]byte, error) {
	for {
		if n := wholeRecords(s.part); n > 0 {
			part := s.part
			s.part = nil
			var err error
			dst, err = s.decrypt(dst, part[:n:n])
			if err == nil && n < len(part) { // came early: more than a record
				s.keep(part[n:])
			}
			s.gate.parts.give(part)
			if err != nil {
				return dst, err
			}
			if len(s.part) == 0 {
				return s.openWhole(dst, in)
			}
		}
		if len(in) == 0 {
			return dst, nil
		}
		n := min(missing(s.part), len(in))
		s.keep(in[:n])
		in = in[n:]
	}
}

// keep adds b to the part.
func (s *Session) keep(b []byte) {
	if cap(s.part)-len(s.part) < len(b) {
		larger := append(s.gate.parts.take(len(s.part)+len(b)), s.part...)
		s.gate.parts.give(s.part)
		s.part = larger
	}
	s.part = append(s.part, b...)
}

// decrypt opens whole records in place.
func (s *Session) decrypt(dst, records []byte) (_ []byte, err error) {
	raw, rest := rawInput(s.conn), input(s.conn)
	*raw = *bytes.NewBuffer(records)
	for err == nil && raw.Len()+rest.Len() > 0 {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(raw.Len()+rest.Len(), 512))
		}
		var n int
		n, err = s.conn.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
	}
	*raw = bytes.Buffer{} // keep nothing of records
	rest.Reset(nil)
	if err == error(wouldBlockError) {
		err = nil
	}
	return dst, err // io.EOF is the close notification: the pipe has no other
}

// openByRead is Open where the inside of a tls.Conn is not known.
func (s *Session) openByRead(dst, in []byte) ([]byte, error) {
	early := s.part
	s.part = nil
	for _, b := range [...][]byte{early, in} {
		s.pipe.in = b
		for {
			if cap(dst)-len(dst) < 512 {
				dst = slices.Grow(dst, 16<<10)
			}
			n, err := s.conn.Read(dst[len(dst):cap(dst)])
			dst = dst[:len(dst)+n]
			if err == error(wouldBlockError) {
				break
			}
			if err != nil {
				s.pipe.in = nil
				return dst, err
			}
		}
	}
	s.pipe.in = nil
	return dst, nil
}

// Seal implements reactor.Transport.
func (s *Session) Seal(dst, plain []byte) []byte {
	p := s.pipe
	p.out = dst
	_, _ = s.conn.Write(plain) // fails only after an error that Open has given
	dst, p.out = p.out, nil
	return dst
}

// CloseNotify implements reactor.Transport.
func (s *Session) CloseNotify(dst []byte) []byte {
	p := s.pipe
	p.out = dst
	_ = s.conn.CloseWrite()
	dst, p.out = p.out, nil
	return dst
}

// wholeRecords returns how many bytes of b are records to their end.
func wholeRecords(b []byte) (n int) {
	for {
		m := missing(b[n:])
		if m > 0 {
			return n
		}
		n += recordSize(b[n:])
	}
}

// recordSize is that of the record whose header b begins with. One that is too
// long ends with its header: crypto/tls refuses it by that.
func recordSize(b []byte) int {
	if n := int(b[3])<<8 | int(b[4]); n <= maxCiphertext {
		return recordHeader + n
	}
	return recordHeader
}

// maxCiphertext is what crypto/tls accepts in TLS 1.2.
const maxCiphertext = 16<<10 + 2048

// missing returns how many bytes the record at the beginning of b lacks, as far as
// is known, at least one if b is empty.
func missing(b []byte) int {
	if len(b) < recordHeader {
		return recordHeader - len(b)
	}
	return max(recordSize(b)-len(b), 0)
}

// parts are buffers for records that came in parts. They are bounded, and belong to
// a loop.
type parts [len(partSizes)][][]byte

var partSizes = [...]int{1 << 10, 4 << 10, recordHeader + maxCiphertext}

const maxFreeParts = 16 // of each size

func (p *parts) take(n int) []byte {
	for i, size := range partSizes {
		if n > size {
			continue
		}
		if k := len(p[i]); k > 0 {
			b := p[i][k-1]
			p[i] = p[i][:k-1]
			return b
		}
		return make([]byte, 0, size)
	}
	return make([]byte, 0, n)
}

func (p *parts) give(b []byte) {
	for i, size := range partSizes {
		if cap(b) == size && len(p[i]) < maxFreeParts {
			p[i] = append(p[i], b[:0])
		}
	}
}
