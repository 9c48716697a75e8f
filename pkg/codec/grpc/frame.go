// SPDX-License-Identifier: Apache-2.0

package grpc

import "encoding/binary"

// PrefixLength is the number of bytes in front of each message: one of flags and
// four of length.
const PrefixLength = 5

// FlagTrailer marks the frame of gRPC-Web whose content are the trailers.
const FlagTrailer = 0x80

// AppendPrefix appends the prefix of a frame.
func AppendPrefix(dst []byte, flags byte, length int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, flags), uint32(length))
}

// Counter counts the messages of a body that comes in pieces. The zero value is
// at the beginning of a body.
type Counter struct {
	left   uint32 // of the message
	length uint32 // as far as it was read
	prefix uint8  // bytes of the prefix that were read
}

// Count takes the next piece and returns how many messages begin in it: their
// prefix was read to its end.
func (c *Counter) Count(chunk []byte) (messages uint64) {
	for len(chunk) > 0 {
		if c.left > 0 {
			n := min(uint64(c.left), uint64(len(chunk)))
			c.left -= uint32(n)
			chunk = chunk[n:]
			continue
		}
		if c.prefix > 0 { // the first byte is flags
			c.length = c.length<<8 | uint32(chunk[0])
		}
		chunk = chunk[1:]
		if c.prefix++; c.prefix == PrefixLength {
			messages++
			c.left, c.length, c.prefix = c.length, 0, 0
		}
	}
	return messages
}
