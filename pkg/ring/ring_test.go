// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestOrderAndBytesHoldAcrossTheEnds(t *testing.T) {
	q := New[int](4, 32)
	var got, want []string
	take := func(i *int, b []byte) { got = append(got, string(rune('A'+*i%26))+string(b)) }
	for i := range 100 {
		text := strings.Repeat(string(rune('a'+i%26)), i%14)
		if !q.Push(&i, []byte(text[:i%14/2]), nil, []byte(text[i%14/2:])) {
			t.Fatalf("entry %d found no room in an empty queue", i)
		}
		want = append(want, string(rune('A'+i%26))+text)
		if i%2 == 1 && q.Drain(10, take) != 2 {
			t.Fatalf("entry %d: not both were drained", i)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestAFullQueueCountsWhatItDrops(t *testing.T) {
	slots, bytesFull := New[int](2, 1024), New[int](1024, 16)
	for i := range 5 {
		slots.Push(&i, make([]byte, 10))
		bytesFull.Push(&i, make([]byte, 10))
	}
	if slots.Len() != 2 || slots.Dropped() != 3 {
		t.Errorf("by slots: %d kept, %d dropped", slots.Len(), slots.Dropped())
	}
	if bytesFull.Len() != 1 || bytesFull.Dropped() != 4 {
		t.Errorf("by bytes: %d kept, %d dropped", bytesFull.Len(), bytesFull.Dropped())
	}
	if n := slots.Drain(1, func(*int, []byte) {}); n != 1 || slots.Len() != 1 {
		t.Errorf("a drain of one took %d and left %d", n, slots.Len())
	}
	if !bytesFull.Push(new(int)) {
		t.Error("an entry without bytes needs none")
	}
}

func TestAQueueTellsOnceThatItIsHalfFull(t *testing.T) {
	for name, c := range map[string]struct{ slots, bytes, each int }{
		"slots": {8, 1 << 10, 0},
		"bytes": {64, 64, 8},
	} {
		q, told := New[int](c.slots, c.bytes), 0
		q.WakeAtHalf(func() { told++ })
		for lap := range 3 {
			for i := range 7 {
				told = 0
				q.Push(&i, make([]byte, c.each))
				if want := i+1 == 4; (told == 1) != want {
					t.Errorf("%s, lap %d: told %d times by entry %d", name, lap, told, i+1)
				}
			}
			q.Drain(64, func(*int, []byte) {})
		}
	}
}

func TestTheFillIsThatOfTheScarcerPart(t *testing.T) {
	q, none := New[int](8, 64), func(*int, []byte) {}
	for lap := range 3 { // across the ends
		if got := q.Fill(); got != 0 {
			t.Fatalf("lap %d: got %v of an empty queue", lap, got)
		}
		q.Push(&lap)
		q.Push(&lap)
		if got := q.Fill(); got != 2./8 {
			t.Errorf("lap %d: got %v by slots, want a quarter", lap, got)
		}
		for range 3 {
			q.Push(&lap, make([]byte, 16))
		}
		if got := q.Fill(); got != 3./4 {
			t.Errorf("lap %d: got %v by bytes, want three quarters", lap, got)
		}
		q.Drain(4, none)
		if got := q.Fill(); got != 1./4 {
			t.Errorf("lap %d: got %v of the last entry, want a quarter", lap, got)
		}
		q.Drain(4, none)
	}
}

// A queue is written and read at once: nothing is lost that was not counted, and order
// and bytes hold, also where those wrap around the end.
func TestAWriterAndAReaderLoseNothing(t *testing.T) {
	q := New[int](16, 1<<10)
	const n = 20_000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < n; {
			b := binary.AppendUvarint(bytes.Repeat([]byte{byte(i)}, i%100), uint64(i))
			if q.Push(&i, b[:len(b)/2], b[len(b)/2:]) {
				i++
			} else {
				runtime.Gosched()
			}
		}
	})
	for next := 0; next < n; runtime.Gosched() {
		q.Drain(3, func(i *int, b []byte) {
			filling, number := b[:next%100], b[next%100:]
			if got, _ := binary.Uvarint(number); *i != next || got != uint64(next) || bytes.Count(filling, []byte{byte(next)}) != next%100 {
				t.Errorf("got entry %d with number %d after %x, want %d", *i, got, filling, next)
			}
			next++
		})
	}
	wg.Wait()
	if q.Len() != 0 {
		t.Errorf("%d are left", q.Len())
	}
}

// entry is as large as a record of an exchange.
type entry struct {
	reader *int
	_      [600]byte
}

func TestPushAndDrainAllocateNothing(t *testing.T) {
	q := New[entry](16, 1<<10)
	e, a, b := &entry{}, make([]byte, 100), make([]byte, 200)
	seen := 0
	if n := testing.AllocsPerRun(500, func() {
		q.Push(e, a, nil, b)
		q.Drain(1, func(e *entry, b []byte) {
			seen += len(b)
			e.reader = nil
		})
	}); n != 0 || seen != 501*300 {
		t.Errorf("%v allocations, %d bytes", n, seen)
	}
}

func BenchmarkPushAndDrain(b *testing.B) {
	q := New[entry](512, 128<<10)
	e, captures, seen := &entry{reader: new(int)}, make([]byte, 150), 0
	take := func(_ *entry, b []byte) { seen += len(b) }
	b.ReportAllocs()
	for b.Loop() {
		if !q.Push(e, captures) {
			q.Drain(512, take)
		}
	}
}
