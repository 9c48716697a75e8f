// SPDX-License-Identifier: Apache-2.0

package http1

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// state is where in a message a decoder is. The transitions:
//
//	idle         Expect (responses only)                   → head
//	head         head without body                         → done
//	             Content-Length > 0                        → length
//	             chunked                                   → chunkSize
//	             neither, response                         → toClose
//	             101, 2xx to CONNECT                       → switched
//	switched     Tunnel was called                         → tunnel
//	length       last byte                                 → done
//	chunkSize    ";" → chunkExt, CR                        → chunkSizeLF
//	chunkExt     CR                                        → chunkSizeLF
//	chunkSizeLF  size > 0 → chunkData, size 0              → trailer
//	chunkData    last byte of the chunk                    → chunkDataCR
//	chunkDataCR  CR                                        → chunkDataLF
//	chunkDataLF  LF                                        → chunkSize
//	trailer      empty line                                → done
//	toClose      EOF                                       → done
//	tunnel       EOF                                       → done
//	done         NextMessage, Expect                       → head
//	             StartTunnel                               → tunnel
//	any          error                                     → failed
type state uint8

const (
	stateHead state = iota
	stateIdle
	stateLength
	stateChunkSize
	stateChunkExt
	stateChunkSizeLF
	stateChunkData
	stateChunkDataCR
	stateChunkDataLF
	stateTrailer
	stateToClose
	stateSwitched
	stateTunnel
	stateDone
	stateFailed
)

// decoder is what reading requests and responses has in common.
type decoder struct {
	lim  limits
	err  *Error // sticky
	left int64  // bytes to come of the body (length) or of the chunk
	body int64  // bytes of all chunks so far

	// seen counts the bytes of an incomplete head or trailer section that were
	// looked at: no line ends before it but those already parsed.
	seen     uint32
	chunkExt uint32 // bytes of chunk extensions so far
	headSize uint32
	state    state
	digits   uint8 // of the chunk size
}

func (d *decoder) fail(e *Error) *Error {
	d.err = e
	d.state = stateFailed
	return e
}

// begin enters the body that a head announced; last: there is none.
func (d *decoder) begin(length int64) (last bool) {
	d.seen, d.chunkExt, d.digits, d.body = 0, 0, 0, 0
	d.left = 0
	switch {
	case length == codec.BodyChunked:
		d.state = stateChunkSize
	case length == codec.BodyToClose:
		d.state = stateToClose
	case length > 0:
		d.left = length
		d.state = stateLength
	default:
		d.state = stateDone
		return true
	}
	return false
}

// waiting reports whether an incomplete head or trailer section is still
// incomplete for sure, because no line ended since: then it need not be parsed
// again. So a head of n lines that comes in byte by byte is parsed n times, not
// once a byte.
func (d *decoder) waiting(section []byte) bool {
	if d.seen == 0 || int(d.seen) > len(section) {
		return false
	}
	i := codec.IndexControl(section, int(d.seen))
	if i == len(section) || i+1 == len(section) && section[i] == '\r' {
		d.seen = uint32(i)
		return true
	}
	return false
}

// wait notes that a section was parsed and found incomplete.
func (d *decoder) wait(section []byte) {
	n := len(section)
	if n > 0 && section[n-1] == '\r' {
		n--
	}
	d.seen = uint32(n)
}
