// SPDX-License-Identifier: Apache-2.0

package http2

import "encoding/binary"

const frameHeaderSize = 9

type frameType uint8

const (
	frameData frameType = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// frame is a frame header (RFC 9113 §4.1).
type frame struct {
	length uint32
	stream uint32
	kind   frameType
	flags  uint8
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

func parseFrame(b []byte) frame {
	_ = b[8]
	return frame{
		length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		kind:   frameType(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & maxStreamID,
	}
}

func appendFrame(dst []byte, length int, kind frameType, flags uint8, stream uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

func putFrame(b []byte, length int, kind frameType, flags uint8, stream uint32) {
	appendFrame(b[:0], length, kind, flags, stream)
}

func appendReset(dst []byte, stream uint32, code ErrorCode) []byte {
	dst = appendFrame(dst, 4, frameReset, 0, stream)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

func appendWindowUpdate(dst []byte, stream, n uint32) []byte {
	dst = appendFrame(dst, 4, frameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(dst, n)
}

func appendGoAway(dst []byte, last uint32, code ErrorCode) []byte {
	dst = appendFrame(dst, 8, frameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, last)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// The settings (RFC 9113 §6.5.2, RFC 8441 §3, RFC 9218 §2.1).
const (
	settingHeaderTableSize      = 1
	settingEnablePush           = 2
	settingMaxConcurrentStreams = 3
	settingInitialWindow        = 4
	settingMaxFrameSize         = 5
	settingMaxHeaderList        = 6
	settingEnableConnect        = 8
	settingNoPriorities         = 9
)

func appendSetting(dst []byte, id uint16, value uint32) []byte {
	dst = binary.BigEndian.AppendUint16(dst, id)
	return binary.BigEndian.AppendUint32(dst, value)
}

// unpad takes padding, and in HEADERS the priority, off a payload.
func unpad(f frame, payload []byte) (body []byte, dependsOn uint32, err *Error) {
	pad := 0
	if f.has(flagPadded) {
		if len(payload) == 0 {
			return nil, 0, errFrameLength
		}
		pad, payload = int(payload[0]), payload[1:]
	}
	if f.kind == frameHeaders && f.has(flagPriority) {
		if len(payload) < 5 {
			return nil, 0, errFrameLength
		}
		dependsOn, payload = binary.BigEndian.Uint32(payload)&maxStreamID, payload[5:]
	}
	if pad > len(payload) {
		return nil, 0, errPadding
	}
	return payload[:len(payload)-pad], dependsOn, nil
}
