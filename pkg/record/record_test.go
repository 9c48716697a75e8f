// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"strings"
	"testing"
)

func TestCapturesComeBackInOrder(t *testing.T) {
	long := bytes.Repeat([]byte("x"), MaxCapture+10)
	var r Record
	for _, v := range [][]byte{[]byte("GET"), nil, {}, long, []byte("last")} {
		r.Captures = AppendCapture(r.Captures, v)
	}
	for i, want := range []struct {
		value string
		ok    bool
	}{{"GET", true}, {"", false}, {"", true}, {string(long[:MaxCapture]), true}, {"last", true}, {"", false}} {
		got, ok := r.Capture(i)
		if ok != want.ok || string(got) != want.value {
			t.Errorf("capture %d: got %d bytes, %v; want %d, %v", i, len(got), ok, len(want.value), want.ok)
		}
	}
}

func FuzzCapture(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, b []byte, i int) {
		r := Record{Captures: b}
		if v, ok := r.Capture(i); !ok && v != nil || len(v) > len(b) {
			t.Errorf("capture %d of %x: %x %v", i, b, v, ok)
		}
	})
}

func TestFlagsHaveTheFieldsNames(t *testing.T) {
	if got := Flags(0).String(); got != "-" {
		t.Errorf("none: %q", got)
	}
	if got := (UH | URX).String(); got != "UH,URX" {
		t.Errorf("two: %q", got)
	}
	if got := string(UT.AppendLong(nil)); got != "UpstreamRequestTimeout" {
		t.Errorf("long: %q", got)
	}
	for i := range flagNames {
		if f, ok := ParseFlag(flagNames[i].short); !ok || f != 1<<i {
			t.Errorf("%s parses as %b", flagNames[i].short, f)
		}
	}
	if _, ok := ParseFlag("XX"); ok {
		t.Error("a flag that does not exist was found")
	}
}

// collector keeps what it is handed; bytes die with Consume, so it copies.
type collector struct{ got []string }

func (c *collector) Consume(r *Record) {
	v, _ := r.Capture(0)
	c.got = append(c.got, r.Route+string(v))
}

func TestARingKeepsOrderAcrossItsEnds(t *testing.T) {
	g := NewRing(4, 32)
	c := &collector{}
	var want []string
	for i := range 100 {
		text := strings.Repeat(string(rune('a'+i%26)), i%7)
		r := Record{Consumer: c, Route: "r", Captures: AppendCapture(nil, []byte(text))}
		if !g.Push(&r) {
			t.Fatalf("record %d found no room in an empty ring", i)
		}
		want = append(want, "r"+text)
		if i%2 == 1 && g.Drain(10) != 2 {
			t.Fatalf("record %d: not both were drained", i)
		}
	}
	if strings.Join(c.got, " ") != strings.Join(want, " ") {
		t.Errorf("got %v\nwant %v", c.got, want)
	}
}

func TestAFullRingCountsWhatItDrops(t *testing.T) {
	c := &collector{}
	slots, bytesFull := NewRing(2, 1024), NewRing(1024, 16)
	r := Record{Consumer: c, Captures: AppendCapture(nil, []byte("12345678"))}
	for range 5 {
		slots.Push(&r)
		bytesFull.Push(&r)
	}
	if slots.Len() != 2 || slots.Dropped() != 3 {
		t.Errorf("by slots: %d kept, %d dropped", slots.Len(), slots.Dropped())
	}
	if bytesFull.Len() != 1 || bytesFull.Dropped() != 4 {
		t.Errorf("by bytes: %d kept, %d dropped", bytesFull.Len(), bytesFull.Dropped())
	}
	if n := slots.Drain(1); n != 1 || slots.Len() != 1 {
		t.Errorf("a drain of one took %d and left %d", n, slots.Len())
	}
	if !bytesFull.Push(&Record{}) {
		t.Error("a record without captures needs no bytes")
	}
}

func TestARingTellsOnceThatItIsHalfFull(t *testing.T) {
	for name, c := range map[string]struct {
		slots, bytes, captures, after int
	}{
		"slots": {8, 1 << 10, 0, 4},
		"bytes": {64, 64, 8, 4},
	} {
		g, told := NewRing(c.slots, c.bytes), 0
		g.WakeAtHalf(func() { told++ })
		for lap := range 3 {
			for i := range 7 {
				told = 0
				g.Push(&Record{Captures: make([]byte, c.captures)})
				if want := i+1 == c.after; (told == 1) != want {
					t.Errorf("%s, lap %d: told %d times by record %d", name, lap, told, i+1)
				}
			}
			g.Drain(64)
		}
	}
}

func TestTheFillOfARingIsThatOfItsScarcerPart(t *testing.T) {
	g := NewRing(8, 64)
	captures := AppendCapture(nil, []byte("0123456789abcd")) // 16 bytes with the length
	for lap := range 3 {                                     // across the ends
		if got := g.Fill(); got != 0 {
			t.Fatalf("lap %d: got %v of an empty ring", lap, got)
		}
		g.Push(&Record{Consumer: &collector{}})
		g.Push(&Record{Consumer: &collector{}})
		if got := g.Fill(); got != 2./8 {
			t.Errorf("lap %d: got %v by slots, want a quarter", lap, got)
		}
		g.Push(&Record{Consumer: &collector{}, Captures: captures})
		g.Push(&Record{Consumer: &collector{}, Captures: captures})
		g.Push(&Record{Consumer: &collector{}, Captures: captures})
		if got := g.Fill(); got != 3./4 {
			t.Errorf("lap %d: got %v by bytes, want three quarters", lap, got)
		}
		g.Drain(4)
		if got := g.Fill(); got != 1./4 {
			t.Errorf("lap %d: got %v of the last record, want a quarter", lap, got)
		}
		g.Drain(4)
	}
}

func TestAWriterAndAReaderLoseNothing(t *testing.T) {
	g := NewRing(64, 4096)
	c := &collector{}
	const n = 20_000
	done := make(chan int)
	go func() {
		pushed := 0
		r := Record{Consumer: c, Captures: AppendCapture(nil, []byte("0123456789"))}
		for range n {
			if g.Push(&r) {
				pushed++
			}
		}
		done <- pushed
	}()
	drained, pushed := 0, -1
	for pushed < 0 {
		drained += g.Drain(16)
		select {
		case pushed = <-done:
		default:
		}
	}
	for k := g.Drain(16); k > 0; k = g.Drain(16) {
		drained += k
	}
	if drained != pushed || uint64(n-pushed) != g.Dropped() || len(c.got) != pushed {
		t.Errorf("%d pushed, %d drained, %d dropped, %d consumed", pushed, drained, g.Dropped(), len(c.got))
	}
}
