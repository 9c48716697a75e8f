// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
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

func TestRecordsComeToTheirConsumersWithTheirCaptures(t *testing.T) {
	g := NewRing(4, 32)
	cs := [2]collector{}
	var want [2][]string
	for i := range 100 {
		text := strings.Repeat(string(rune('a'+i%26)), i%7)
		r := Record{Consumer: &cs[i%2], Route: "r", Captures: AppendCapture(nil, []byte(text))}
		if !g.Push(&r) {
			t.Fatalf("record %d found no room in an empty ring", i)
		}
		want[i%2] = append(want[i%2], "r"+text)
		if i%2 == 1 && g.Drain(10) != 2 {
			t.Fatalf("record %d: not both were drained", i)
		}
	}
	for i, c := range cs {
		if !slices.Equal(c.got, want[i]) {
			t.Errorf("consumer %d: got %v\nwant %v", i, c.got, want[i])
		}
	}
}

// What a consumer writes to is given back when nothing holds the consumer any more.
func TestADrainedRingHoldsNoConsumer(t *testing.T) {
	g, gone := NewRing(4, 32), make(chan struct{})
	func() { // after it only the ring could hold the consumer
		c := &collector{}
		runtime.AddCleanup(c, func(gone chan struct{}) { close(gone) }, gone)
		g.Push(&Record{Consumer: c})
		g.Drain(1)
	}()
	for end := time.Now().Add(30 * time.Second); ; {
		runtime.GC()
		select {
		case <-gone:
			runtime.KeepAlive(g)
			return
		default:
			if time.Now().After(end) {
				t.Fatal("the ring holds the consumer of a record that it does not have any more")
			}
		}
	}
}

func BenchmarkRing(b *testing.B) {
	g := NewRing(512, 128<<10)
	r := Record{Consumer: &counter{}, Route: "r", Captures: make([]byte, 150)}
	b.ReportAllocs()
	for b.Loop() {
		if !g.Push(&r) {
			g.Drain(512)
		}
	}
}

type counter struct{ n int }

func (c *counter) Consume(r *Record) { c.n += len(r.Captures) }
