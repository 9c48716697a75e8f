// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// webFrame is a frame of so many bytes; those of clients are masked with zeros.
func webFrame(op byte, size int, masked bool) []byte {
	b := []byte{op, 0}
	switch {
	case size < 126:
		b[1] = byte(size)
	case size < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(size))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(size))
	}
	if masked {
		b[1] |= webMask
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, bytes.Repeat([]byte{0xff}, size)...) // which would be no head
}

func TestFramesAreFollowedHoweverTheyAreCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 125, 126, 127, 65535, 65536, 70000}
	for range 300 {
		masked := rng.IntN(2) == 0
		var stream []byte
		ends := map[int]bool{}
		for range 1 + rng.IntN(6) {
			op := []byte{0x82, 0x01, 0x80, 0x89, 0xc1}[rng.IntN(5)]
			stream = append(stream, webFrame(op, sizes[rng.IntN(len(sizes))], masked)...)
			ends[len(stream)] = true
		}
		whole, steps := webFrames{masked: masked}, webFrames{masked: masked}
		at := 0
		for at < len(stream) {
			n := min(1+rng.IntN(9000), len(stream)-at)
			whole.pass(stream[at : at+n])
			for b := stream[at : at+n]; len(b) > 0; {
				used := steps.step(b)
				place := len(stream[at:at+n]) - len(b) + used + at
				if steps.between() != ends[place] {
					t.Fatalf("at byte %d it is between frames: %v", place, steps.between())
				}
				b = b[used:]
			}
			at += n
			if whole.between() != ends[at] || whole.lost || whole.closed {
				t.Fatalf("at byte %d: %+v", at, whole)
			}
		}
	}
}

func TestWhatIsNoWebSocketIsNotFollowed(t *testing.T) {
	for name, tt := range map[string]struct {
		bytes  []byte
		masked bool
	}{
		"text":                  {[]byte("still"), false},
		"a reserved bit":        {[]byte{0xa1, 0}, false},
		"a reserved opcode":     {[]byte{0x83, 0}, false},
		"a client's, unmasked":  {webFrame(0x81, 3, false), true},
		"a server's, masked":    {webFrame(0x81, 3, true), false},
		"a length of 2 to 63":   {[]byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, false},
		"the same, then a good": {append([]byte{0x83, 0}, webFrame(0x81, 1, false)...), false},
	} {
		f := webFrames{masked: tt.masked}
		f.pass(tt.bytes)
		if f.between() || !f.lost {
			t.Errorf("%s: %+v", name, f)
		}
	}
	var f webFrames
	if f.pass(webFrame(0x88, 2, false)); !f.closed || !f.between() {
		t.Errorf("a Close frame: %+v", f)
	}
}

func BenchmarkFollowingFrames(b *testing.B) {
	for _, size := range []int{16, 1024, 65536} {
		chunk := webFrame(0x82, size, false)
		for len(chunk) < 60_000 {
			chunk = append(chunk, webFrame(0x82, size, false)...)
		}
		b.Run(binaryName(size), func(b *testing.B) {
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			var f webFrames
			for b.Loop() {
				f.pass(chunk)
			}
			if f.lost {
				b.Fatal("lost")
			}
		})
	}
}

func binaryName(size int) string {
	return map[int]string{16: "16 bytes", 1024: "1 KiB", 65536: "64 KiB"}[size]
}
