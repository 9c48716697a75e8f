// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

var maxTime = time.UnixMilli(1 << 43)

func newStore(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := NewStore(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sampleSpans(t testing.TB) []*Span {
	t.Helper()
	data, err := os.ReadFile("testdata/trace.json")
	if err != nil {
		t.Fatal(err)
	}
	spans, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return spans
}

// span makes one of the given trace that fills about size bytes.
func span(trace, id, size int) *Span {
	return &Span{
		TraceID: fmt.Sprintf("%016x", trace), ID: fmt.Sprintf("%016x", id), Kind: Server,
		Timestamp: int64(trace), Local: Endpoint{ServiceName: fmt.Sprintf("service-%d", trace)},
		Tags: []Tag{{"fill", strings.Repeat("x", size)}},
	}
}

func TestTheOldestTracesAreForgottenWhenTheStoreIsFull(t *testing.T) {
	const limit = 100_000
	s := newStore(t, Config{MaxBytes: limit})
	for i := 1; i <= 1000; i++ {
		s.Add([]*Span{span(i, 1, 1000), span(i, 2, 1000)})
		if got := s.Stats().Bytes; got > limit {
			t.Fatalf("after %d traces the store holds %d bytes, the limit is %d", i, got, limit)
		}
	}
	st := s.Stats()
	if st.Traces == 0 || st.Traces+int(st.EvictedTraces) != 1000 || st.Spans+int(st.EvictedSpans) != 2000 {
		t.Errorf("held and forgotten do not add up to what came: %+v", st)
	}
	if s.Trace(fmt.Sprintf("%016x", 1)) != nil {
		t.Error("the first trace is still there")
	}
	if got := len(s.Trace(fmt.Sprintf("%016x", 1000))); got != 2 {
		t.Errorf("the last trace has %d spans, want 2", got)
	}
	if got := len(s.Services()); got != st.Traces {
		t.Errorf("%d services are listed for %d traces: forgotten ones must leave the lists", got, st.Traces)
	}
}

func TestOneTraceCannotPushTheOthersOut(t *testing.T) {
	s := newStore(t, Config{MaxBytes: 100_000})
	s.Add([]*Span{span(1, 1, 100)})
	for i := range 1000 {
		s.Add([]*Span{span(2, i+1, 1000)})
	}
	if s.Trace(fmt.Sprintf("%016x", 1)) == nil {
		t.Error("a runaway trace evicted another")
	}
	st := s.Stats()
	if st.Dropped == 0 || int(st.Dropped)+st.Spans != 1001 {
		t.Errorf("got %+v, want the spans beyond the trace's limit counted as dropped", st)
	}
}

func TestASpanDeliveredTwiceIsKeptOnce(t *testing.T) {
	s := newStore(t, Config{})
	s.Add(sampleSpans(t))
	s.Add(sampleSpans(t))
	st := s.Stats()
	if st.Spans != 7 || st.Duplicates != 7 {
		t.Errorf("got %d spans and %d duplicates, want 7 and 7", st.Spans, st.Duplicates)
	}
}

func TestEncodedSpansAreKeptAndBadOnesCounted(t *testing.T) {
	s := newStore(t, Config{})
	refused := s.AddEncoded([][]byte{[]byte(`{"traceId":"1","id":"1"}`), []byte(`{`), []byte(`{"traceId":"1","id":"2"}`), nil})
	if refused != 2 || s.Stats().Spans != 2 || s.Stats().Refused != 2 {
		t.Errorf("got %d refused and %+v, want 2 refused and 2 kept", refused, s.Stats())
	}
}

func TestAStoreTooSmallToBeUsefulIsRefused(t *testing.T) {
	if _, err := NewStore(Config{MaxBytes: 10}); err == nil || !strings.Contains(err.Error(), "maxBytes") {
		t.Errorf("got %v, want an error that names maxBytes", err)
	}
}

func TestLinksCountCallsBetweenServices(t *testing.T) {
	s := newStore(t, Config{})
	s.Add(sampleSpans(t))
	got := s.Links(time.UnixMilli(1_700_000_001_000), time.Hour)
	want := []Link{
		{Parent: "orders", Child: "payments", CallCount: 1, ErrorCount: 1},
		{Parent: "payments", Child: "postgres", CallCount: 1},
		{Parent: "web", Child: "orders", CallCount: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := s.Links(time.UnixMilli(1_600_000_000_000), time.Hour); len(got) != 0 {
		t.Errorf("got %+v for a time before the trace, want none", got)
	}
}

func TestACircleOfParentsEnds(t *testing.T) {
	s := newStore(t, Config{})
	a, b := span(1, 1, 0), span(1, 2, 0)
	a.Kind, b.Kind = "", Server
	a.ParentID, b.ParentID = b.ID, a.ID
	c := span(1, 3, 0)
	c.Kind, c.ParentID = "", c.ID
	d := span(1, 4, 0)
	d.ParentID = c.ID
	s.Add([]*Span{a, b, c, d})
	if got := s.Links(maxTime, 0); len(got) != 0 {
		t.Errorf("got %v, want no links", got)
	}
}

func TestTheStoreServesReadersWhileSpansArrive(t *testing.T) {
	s := newStore(t, Config{MaxBytes: 50_000})
	var running sync.WaitGroup
	for w := range 4 {
		running.Go(func() {
			for i := range 500 {
				s.Add([]*Span{span(w*1000+i+1, 1, 200)})
			}
		})
		running.Go(func() {
			for range 50 {
				s.Traces(Query{Limit: 5})
				s.Services()
				s.Links(maxTime, 0)
			}
		})
	}
	running.Wait()
	if st := s.Stats(); st.Accepted != 2000 {
		t.Errorf("got %d accepted, want 2000", st.Accepted)
	}
}
