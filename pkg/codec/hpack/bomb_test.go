// SPDX-License-Identifier: Apache-2.0

package hpack

import (
	"strings"
	"testing"
)

// blockOf is a block that puts a long name into the table, and then tail n times.
func blockOf(name int, tail string, n int) []byte {
	b := appendInteger([]byte{0x40}, 0, 7, uint32(name))
	b = append(b, strings.Repeat("n", name)...)
	return append(append(b, "\x01v"...), strings.Repeat(tail, n)...)
}

// What a block costs is bounded by the list that it may become, not by what its
// references stand for.
func TestABlockOfReferencesToALongNameIsBounded(t *testing.T) {
	const long, many = 4000, 20_000 // 80 MB of 44 kB
	for _, c := range []struct {
		name, tail string
		want       *Error
	}{
		{"fields of the table", "\xbe", nil},
		{"names of the table without indexing", "\x0f\x2f\x00", nil},
		{"names of the table never to be indexed", "\x1f\x2f\x00", nil},
		{"names of the table with indexing", "\x7e\x00", ErrTooMuch},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d Decoder
			d.Init(4096)
			l := List{MaxBytes: 60 << 10, MaxCount: 100}
			if err := d.Decode(blockOf(long, c.tail, many), &l); err != c.want || !l.TooLarge {
				t.Fatalf("%v, too large %v", err, l.TooLarge)
			}
			if most := (maxBeyond + 1) * (l.MaxBytes + long); l.beyond > most || cap(l.Buf) > most {
				t.Errorf("%d bytes decoded beyond the list, %d kept", l.beyond, cap(l.Buf))
			}
		})
	}
}

// What is passed over still has to be there.
func TestABrokenFieldBehindAListThatIsTooLargeIsAnError(t *testing.T) {
	for _, tail := range []string{"\x00", "\x00\x05abc", "\x00\x01a\x05abc", "\x0f\x70\x00", "\x0f\xff\xff\xff\xff\xff\xff", "\xff\x70", "\x80", "\x20"} {
		var d Decoder
		d.Init(4096)
		l := List{MaxBytes: 1000, MaxCount: 100}
		if err := d.Decode(append(blockOf(1000, "", 0), tail...), &l); err == nil || !l.TooLarge {
			t.Errorf("%q: %v", tail, err)
		}
	}
}

// BenchmarkBlockThatAmplifies is the worst block of 64 KiB.
func BenchmarkBlockThatAmplifies(b *testing.B) {
	for name, tail := range map[string]string{"indexing": "\x7e\x00", "not": "\x0f\x2f\x00"} {
		block := blockOf(4000, tail, 60<<10/len(tail))
		b.Run(name, func(b *testing.B) {
			var d Decoder
			d.Init(4096)
			l := List{MaxBytes: 60 << 10, MaxCount: 100}
			for b.Loop() {
				l.Reset()
				_ = d.Decode(block, &l)
			}
		})
	}
}
