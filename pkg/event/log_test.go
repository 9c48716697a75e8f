// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func at(second int64) func() time.Time { return func() time.Time { return time.Unix(second, 0) } }

func messages(list []Event) string {
	var out []string
	for _, e := range list {
		out = append(out, fmt.Sprint(e.ID, ":", e.Message))
	}
	return strings.Join(out, " ")
}

func TestAFloodOfOneKindLeavesTheOthers(t *testing.T) {
	l := NewLog(4, at(1))
	l.Add(Event{Kind: KindCircuit, Type: Opened, Message: "early"})
	for i := range 100 {
		l.Add(Event{Kind: KindHealth, Type: Failed, Message: fmt.Sprint(i)})
	}
	list, missed, _ := l.After(0, Filter{}, 100)
	if got, want := messages(list), "1:early 98:96 99:97 100:98 101:99"; got != want || missed {
		t.Errorf("got %s (missed %v), want %s", got, missed, want)
	}
	if list, missed, _ = l.After(50, Filter{}, 100); !missed || len(list) != 4 {
		t.Errorf("a reader that fell behind: %s, missed %v", messages(list), missed)
	}
	if list, missed, _ = l.After(1, Filter{Kinds: []string{"Circuit"}}, 100); missed || len(list) != 0 {
		t.Errorf("a reader of circuits alone: %s, missed %v", messages(list), missed)
	}
	if list, missed, _ = l.After(99, Filter{}, 1); missed || messages(list) != "100:98" {
		t.Errorf("the next one: %s, missed %v", messages(list), missed)
	}
	if list, missed, _ = l.After(5000, Filter{}, 100); missed || len(list) != 5 {
		t.Errorf("with an id of another process: %s, missed %v", messages(list), missed)
	}
}

func TestReadersAreWokenByTheNextEvent(t *testing.T) {
	l := NewLog(0, nil)
	_, _, more := l.After(0, Filter{}, 1)
	select {
	case <-more:
		t.Fatal("woken before there is an event")
	default:
	}
	l.Add(Event{Kind: KindDrain})
	<-more
	if l.Last() != 1 {
		t.Errorf("last: %d", l.Last())
	}
	var none *Log
	none.Add(Event{}) // a part without a log need not ask
}

func TestLinesBeginWithWhatIsKept(t *testing.T) {
	l := NewLog(0, at(1_700_000_000))
	l.Add(Event{Kind: KindUpgrade, Type: Began})
	l.Add(Event{Kind: KindDrain, Type: Began})
	var got []string
	l.WriteLines(func(b []byte) { got = append(got, string(b)) })
	l.Add(Event{Kind: KindUpgrade, Type: Ended})
	want := []string{
		`{"id":1,"time":"2023-11-14T22:13:20Z","kind":"upgrade","type":"began"}` + "\n",
		`{"id":2,"time":"2023-11-14T22:13:20Z","kind":"drain","type":"began"}` + "\n",
		`{"id":3,"time":"2023-11-14T22:13:20Z","kind":"upgrade","type":"ended"}` + "\n",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLinesAreWholeAndInOrder(t *testing.T) {
	l := NewLog(0, at(1_700_000_000))
	var lines []string
	l.WriteLines(func(b []byte) { lines = append(lines, string(b)) })
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				l.Add(Event{Kind: KindEjection, Type: Ejected, Cluster: "c", Endpoint: "10.0.0.1:80", Numbers: Numbers{{"threshold", 5}, {"ejectedPercent", 100.0 / 3}}})
			}
		})
	}
	all.Wait()
	if len(lines) != 400 {
		t.Fatalf("%d lines", len(lines))
	}
	const want = `{"id":1,"time":"2023-11-14T22:13:20Z","kind":"ejection","type":"ejected","cluster":"c","endpoint":"10.0.0.1:80","numbers":{"threshold":5,"ejectedPercent":33.333}}` + "\n"
	if lines[0] != want {
		t.Errorf("got  %s\nwant %s", lines[0], want)
	}
	for i, line := range lines {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.ID != uint64(i+1) {
			t.Fatalf("line %d: %v %s", i, err, line)
		}
	}
}

func TestNumbersKeepTheirOrder(t *testing.T) {
	in := Numbers{{"z", 1}, {"a", 0.5}, {"big", 1e18}, {"none", math.NaN()}, {"all", math.Inf(1)}, {"large", math.MaxFloat64}}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out Numbers
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	want := Numbers{{"z", 1}, {"a", 0.5}, {"big", 1e18}, {"none", 0}, {"all", 0}, {"large", math.MaxFloat64}}
	if !slices.Equal(out, want) {
		t.Errorf("got %v, want %v", out, want)
	}
	if got := out[:2].String(); got != "z 1, a 0.5" {
		t.Errorf("as text: %s", got)
	}
	if v, ok := out.Get("a"); !ok || v != 0.5 {
		t.Errorf("a: %v %v", v, ok)
	}
	for _, bad := range []string{`[1]`, `{"a":"x"}`, `{"a":`, `3`} {
		if json.Unmarshal([]byte(bad), &out) == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestWhatIsTooLongIsCutOff(t *testing.T) {
	l := NewLog(0, nil)
	l.Add(Event{Kind: KindNACK, Name: strings.Repeat("ä", MaxText), Message: strings.Repeat("x", 1<<20), Numbers: make(Numbers, 1000)})
	list, _, _ := l.After(0, Filter{}, 1)
	e := list[0]
	if len(e.Name) > MaxText || !strings.HasSuffix(e.Name, "ä…") || len(e.Message) != MaxMessage || len(e.Numbers) != MaxNumbers {
		t.Errorf("%d %d %d: %s", len(e.Name), len(e.Message), len(e.Numbers), e.Name)
	}
}

func TestFramesAreReadAsTheyWereWritten(t *testing.T) {
	b := []byte(": hello\n\n" + KeepAlive)
	in := []Frame{{7, "ejection", `{"a":1}`}, {0, Missed, `{}`}, {8, "circuit", `[]`}}
	for _, f := range in {
		b = AppendFrame(b, f)
	}
	var out []Frame
	if err := ReadFrames(strings.NewReader(string(b)), func(f Frame) error { out = append(out, f); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(in, out) {
		t.Errorf("got %v, want %v", out, in)
	}
	stop := errors.New("enough")
	if err := ReadFrames(strings.NewReader(string(b)), func(Frame) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("not stopped: %v", err)
	}
	if err := ReadFrames(strings.NewReader("id: x\ndata: 1\n\n"), nil); err == nil {
		t.Error("an id that is no number is taken")
	}
	if err := ReadFrames(strings.NewReader("data: 1\ndata: 2\r\n\r\n"), func(f Frame) error {
		if f != (Frame{0, "message", "1\n2"}) {
			t.Errorf("got %v", f)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// Names that readers give a meaning of their own can be no types.
func TestWhatIsKnownHasPlainNamesAndNoReserved(t *testing.T) {
	types := []string{
		Ejected, Spared, Returned, Opened, HalfOpen, Closed, Entered, Left, Failed, Passed, Degraded, Restored, Refused, Panicked, Began, Ended,
	}
	used := map[string]bool{}
	for _, kind := range Kinds {
		n := 0
		for _, typ := range types {
			if Known(kind, typ) {
				n++
				used[typ] = true
			}
			if strings.Trim(kind+typ, "abcdefghijklmnopqrstuvwxyz_") != "" {
				t.Errorf("%q %q", kind, typ)
			}
		}
		if n == 0 {
			t.Errorf("%s has no type", kind)
		}
		for _, typ := range []string{"", "reset", Missed, "synced", "put", "ejected\n", "Ejected"} {
			if Known(kind, typ) {
				t.Errorf("%s %q is known", kind, typ)
			}
		}
	}
	if len(used) != len(types) || Known("Service", "deleted") || Known("", "") || Known(KindCircuit, Ejected) {
		t.Errorf("used are %v", used)
	}
}
