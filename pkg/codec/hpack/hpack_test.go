// SPDX-License-Identifier: Apache-2.0

package hpack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

func list(maxBytes, maxCount int) *List { return &List{MaxBytes: maxBytes, MaxCount: maxCount} }

func render(l *List) string {
	var b strings.Builder
	for _, f := range l.Fields {
		fmt.Fprintf(&b, "%q=%q\n", l.Buf[f.Name:f.NameEnd], l.Buf[f.Value:f.ValueEnd])
	}
	return b.String()
}

func TestStringsDecodeAsTheOracleEncodesThem(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 2000 {
		s := make([]byte, r.IntN(60))
		for i := range s {
			s[i] = byte(r.Uint32())
			if n%2 == 0 {
				s[i] = "abcdefghijklmnopqrstuvwxyz0123456789-/. =;"[int(s[i])%42]
			}
		}
		coded := hpack.AppendHuffmanString(nil, string(s))
		got, ok := appendHuffman(nil, coded)
		if !ok || !bytes.Equal(got, s) {
			t.Fatalf("%q: got %q, %v", s, got, ok)
		}
	}
}

func TestWrongPaddingIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"none", []byte{}, true},
		{"a with three ones", []byte{0x1f}, true},
		{"a with a zero in its padding", []byte{0x1e}, false},
		{"eight bits of padding", []byte{0x1f, 0xff}, false},
		{"end of string", []byte{0xff, 0xff, 0xff, 0xff}, false},
		{"end of string behind a symbol", []byte{0x1f, 0xff, 0xff, 0xff, 0xff}, false},
	} {
		if _, ok := appendHuffman(nil, c.in); ok != c.ok {
			t.Errorf("%s: %v", c.name, ok)
		}
	}
}

// fields draws fields of which many come again.
func fields(r *rand.Rand) (name, value string) {
	names := []string{":path", ":status", "cookie", "x-request-id", "user-agent", "x-custom", "etag", "server", "accept-encoding", "x"}
	name = names[r.IntN(len(names))]
	switch r.IntN(4) {
	case 0:
		return name, fmt.Sprint(r.IntN(5))
	case 1:
		return name, strings.Repeat("v", r.IntN(400)) + fmt.Sprint(r.IntN(3))
	case 2:
		return name, "200"
	}
	return name, fmt.Sprint(r.Uint64())
}

func TestBothEndsAgreeWithTheOracleOverManyBlocksAndSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, size := range []uint32{4096, 0, 64, 300, 65536} {
		var wire bytes.Buffer
		theirs := hpack.NewEncoder(&wire)
		theirs.SetMaxDynamicTableSizeLimit(65536)
		theirs.SetMaxDynamicTableSize(size)
		var d Decoder
		d.Init(max(size, 4096))
		var e Encoder
		e.Init(65536)
		e.SetPeerMax(size)
		var got []string
		oracle := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, fmt.Sprintf("%q=%q\n", f.Name, f.Value)) })
		oracle.SetAllowedMaxDynamicTableSize(65536)
		var mine Decoder
		mine.Init(4096)
		mine.SetAllowed(65536)
		for range 300 {
			wire.Reset()
			want := ""
			block := e.Begin(nil)
			for range r.IntN(12) {
				n, v := fields(r)
				sensitive := r.IntN(9) == 0
				if err := theirs.WriteField(hpack.HeaderField{Name: n, Value: v, Sensitive: sensitive}); err != nil {
					t.Fatal(err)
				}
				p := Auto
				if sensitive {
					p = Sensitive
				}
				block = e.AppendField(block, []byte(n), []byte(v), p)
				want += fmt.Sprintf("%q=%q\n", n, v)
			}
			l := list(1<<20, 100)
			if err := d.Decode(wire.Bytes(), l); err != nil || render(l) != want {
				t.Fatalf("size %d: %v\n%swant\n%s", size, err, render(l), want)
			}
			got = nil
			oracle.Close() // the block before has ended
			if _, err := oracle.Write(block); err != nil || strings.Join(got, "") != want {
				t.Fatalf("size %d: the oracle reads %v\n%swant\n%s", size, err, got, want)
			}
			l.Reset()
			if err := mine.Decode(block, l); err != nil || render(l) != want {
				t.Fatalf("size %d: %v\n%swant\n%s", size, err, render(l), want)
			}
			if mine.size > max(size, 0) || cap(mine.buf) > 4*int(max(size, 256)) {
				t.Fatalf("size %d: a table of %d bytes in a buffer of %d", size, mine.size, cap(mine.buf))
			}
			if r.IntN(50) == 0 && size >= 300 {
				e.SetPeerMax(size / 2)
				e.SetPeerMax(size)
			}
		}
	}
}

func TestABombIsNotKeptAndTheTableStaysRight(t *testing.T) {
	var e Encoder
	e.Init(4096)
	big := bytes.Repeat([]byte("x"), 2900)
	block := e.AppendField(nil, []byte("bomb"), big, Auto)
	block = e.AppendField(block, []byte("bomb"), big, Auto) // enters the table
	for range 15_000 {
		block = e.AppendField(block, []byte("bomb"), big, Auto)
	}
	block = e.AppendField(block, []byte("after"), []byte("1"), Auto)
	block = e.AppendField(block, []byte("after"), []byte("1"), Auto)
	var d Decoder
	d.Init(4096)
	l := list(60<<10, 100)
	if err := d.Decode(block, l); err != nil || !l.TooLarge {
		t.Fatal(err, l.TooLarge)
	}
	if len(block) > 40_000 || len(l.Buf) > 60<<10 {
		t.Fatalf("%d bytes became %d", len(block), len(l.Buf))
	}
	l.Reset()
	next := e.AppendField(nil, []byte("after"), []byte("1"), Auto)
	if err := d.Decode(next, l); err != nil || render(l) != "\"after\"=\"1\"\n" || len(next) != 1 {
		t.Errorf("behind it: %v %s", err, render(l))
	}
}

func TestBrokenBlocksAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     *Error
	}{
		{"index 0", "\x80", errIndex},
		{"an index of nothing", "\xbe", errIndex},
		{"a name's index of nothing", "\x7f\x00\x01a", errIndex},
		{"an integer without its end", "\xff\x80", errTruncated},
		{"an integer that overflows", "\xff\xff\xff\xff\xff\xff\xff\x01", errInteger},
		{"a string longer than the block", "\x00\x05abc", errTruncated},
		{"a string of huge length", "\x00\x7f\xff\xff\xff\xff\x0f", errInteger},
		{"no value", "\x00\x01a", errTruncated},
		{"a table larger than allowed", "\x3f\xe2\x1f", errUpdate},
		{"an update behind a field", "\x82\x20", errUpdate},
		{"broken Huffman", "\x00\x81\x00\x00", errHuffman},
	} {
		var d Decoder
		d.Init(4096)
		if err := d.Decode([]byte(c.in), list(1<<20, 100)); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	var d Decoder
	d.Init(4096)
	d.SetAllowed(100)
	if err := d.Decode([]byte("\x82"), list(1<<20, 100)); err != errNoUpdate {
		t.Errorf("a table that was not shrunk: %v", err)
	}
	if err := d.Decode([]byte("\x20\x82"), list(1<<20, 100)); err != nil {
		t.Errorf("a table that was shrunk: %v", err)
	}
	if err := d.Decode([]byte("\x40\x01a\x01b\x82"), list(1<<20, 100)); err != nil {
		t.Errorf("a field for the table: %v", err)
	}
	if err := d.Decode([]byte("\x20\x3f\x05\x82"), list(1<<20, 100)); err != nil { // RFC 7541, section 4.2
		t.Errorf("a table that was emptied and given a size: %v", err)
	}
}

func TestFieldsAreClassified(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        Flags
	}{
		{"x-a", "b", 0}, {":path", "/", Pseudo}, {"X-A", "b", BadName}, {"", "b", BadName}, {"x a", "b", BadName}, {"x:a", "b", BadName},
		{"x-a", "b\x00", BadValue}, {"x-a", "b\r\nc: d", BadValue}, {"x-a", " b", BadValue}, {"x-a", "b\t", BadValue}, {"x-a", "\x80", 0},
		{"x-a", "", 0}, {"x-a", "\x7f", BadValue}, {"x\x00", "b", BadName},
	} {
		var d Decoder
		d.Init(4096)
		block := appendLiteral(nil, 0x40, 6, 0, []byte(c.name), []byte(c.value))
		block = append(block, 0xbe) // and again from the table
		l := list(1<<20, 100)
		if err := d.Decode(block, l); err != nil || len(l.Fields) != 2 || l.Fields[0].Flags != c.want || l.Fields[1].Flags != c.want {
			t.Errorf("%q: %q: %v %+v", c.name, c.value, err, l.Fields)
		}
	}
}

func TestSecretsEnterNoTable(t *testing.T) {
	var e Encoder
	e.Init(4096)
	for range 3 {
		b := e.AppendField(nil, []byte("authorization"), []byte("Bearer x"), Sensitive)
		if b[0]&0xf0 != 0x10 || e.count != 0 {
			t.Fatalf("%x with %d entries", b, e.count)
		}
	}
}

func TestCodingAllocatesNothingInSteadyState(t *testing.T) {
	var e Encoder
	e.Init(4096)
	var d Decoder
	d.Init(4096)
	l := list(60<<10, 100)
	var block []byte
	n := 0
	value := make([]byte, 300)
	run := func() {
		n++
		value[0], value[1] = byte('a'+n%7), byte('a'+n/7%7)
		block = e.Begin(block[:0])
		block = e.AppendField(block, []byte("x-custom"), value, Auto)
		block = e.AppendField(block, []byte("user-agent"), []byte("test"), Auto)
		block = e.AppendNamed(block, StaticPath, []byte("/a/b"), Auto)
		l.Reset()
		if err := d.Decode(block, l); err != nil || len(l.Fields) != 3 {
			t.Fatal(err)
		}
	}
	for range 500 {
		run()
	}
	if a := testing.AllocsPerRun(500, run); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// startsWithTwoUpdates tells whether a block that decodes begins with two updates of the
// table's size (RFC 7541, section 6.3).
func startsWithTwoUpdates(block []byte) bool {
	for range 2 {
		if len(block) == 0 || block[0]&0xe0 != 0x20 {
			return false
		}
		n := 1
		if block[0]&0x1f == 0x1f {
			for block[n]&0x80 != 0 {
				n++
			}
			n++
		}
		block = block[n:]
	}
	return true
}

// FuzzDecode compares with the oracle: what both accept, they read alike.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", "\x40\x01a\x01b\xbe", "\x20\x3f\xe1\x1f", "\x10\x01a\x00", "\x00\x81\x1f\x00", "\x3f\x80\x80\x80\x80\x80\x00"} {
		f.Add([]byte(s), []byte(s))
	}
	f.Add([]byte("\x40\x01a\x01b"), []byte("\x3f\x3f\x3f\x3f\x40\x01a\x01b\xbe"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)+len(b) > 1000 {
			return // without limits a bomb takes long on both sides
		}
		var d Decoder
		d.Init(4096)
		var want strings.Builder
		oracle := hpack.NewDecoder(4096, func(f hpack.HeaderField) { fmt.Fprintf(&want, "%q=%q\n", f.Name, f.Value) })
		oracle.SetMaxStringLength(1 << 20)
		for _, block := range [][]byte{a, b} {
			want.Reset()
			l := list(1<<30, 1<<30)
			err := d.Decode(block, l)
			_, theirs := oracle.Write(block)
			if theirs == nil {
				theirs = oracle.Close()
			}
			if err == errUpdate {
				return // the oracle lets some updates pass behind a field
			}
			if err == errInteger {
				return // our integers have six bytes at most (RFC 7541, section 5.1), the oracle's ten
			}
			if err == nil && theirs != nil && startsWithTwoUpdates(block) {
				return // RFC 7541, section 4.2 allows two, the oracle one unless its table is empty
			}
			if (err == nil) != (theirs == nil) {
				t.Fatalf("%x: %v, the oracle %v", block, err, theirs)
			}
			if err != nil {
				return
			}
			if render(l) != want.String() {
				t.Fatalf("%x:\n%sthe oracle\n%s", block, render(l), want.String())
			}
		}
	})
}
