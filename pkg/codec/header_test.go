// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// listing is the live fields, one a line.
func listing(h *Header) string {
	var b strings.Builder
	for i := range h.Slots() {
		if name, value, _, ok := h.At(i); ok {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	return b.String()
}

func header(fields ...string) *Header {
	h := &Header{}
	for i := 0; i < len(fields); i += 2 {
		h.AddString(fields[i], fields[i+1])
	}
	return h
}

func TestFieldsAreFoundWithoutCaseAndKeptWithIt(t *testing.T) {
	h := header("ACCEPT", "a", "X-Custom", "b", "x-custom", "c", "Empty", "")
	if got := h.Get("accept"); string(got) != "a" {
		t.Errorf("accept is %q", got)
	}
	if got := h.Known(NameAccept); string(got) != "a" || !h.HasKnown(NameAccept) {
		t.Errorf("known accept is %q", got)
	}
	if got := h.Get("x-custom"); string(got) != "b" {
		t.Errorf("first x-custom is %q", got)
	}
	if got := h.Get("empty"); got == nil || len(got) != 0 {
		t.Errorf("empty is %#v, want empty and not nil", got)
	}
	if h.Get("absent") != nil || h.Known(NameVia) != nil || h.HasKnown(NameVia) || h.Index("absent", 0) != -1 {
		t.Error("a field that is not there was found")
	}
	joined, found := h.AppendJoined(nil, "x-custom")
	if string(joined) != "b,c" || !found {
		t.Errorf("joined %q, %v", joined, found)
	}
	if _, found := h.AppendJoined(nil, "absent"); found {
		t.Error("joined values of a field that is not there")
	}
	if got, want := listing(h), "ACCEPT: a\nX-Custom: b\nx-custom: c\nEmpty: \n"; got != want {
		t.Errorf("listing\n%swant\n%s", got, want)
	}
}

func TestChangesKeepTheOrderOfTheOthers(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(h *Header)
		want string
	}{
		{"remove", func(h *Header) { h.Remove("x-b") }, "X-A: 1\nVia: 4\nVia: 5\n"},
		{"remove known", func(h *Header) { h.RemoveKnown(NameVia) }, "X-A: 1\nX-B: 2\nX-B: 3\n"},
		{"remove at twice", func(h *Header) { h.RemoveAt(0); h.RemoveAt(0) }, "X-B: 2\nX-B: 3\nVia: 4\nVia: 5\n"},
		{"set", func(h *Header) { h.Set("x-b", []byte("9")) }, "X-A: 1\nX-B: 9\nVia: 4\nVia: 5\n"},
		{"set a new one", func(h *Header) { h.Set("x-c", []byte("9")) }, "X-A: 1\nX-B: 2\nX-B: 3\nVia: 4\nVia: 5\nx-c: 9\n"},
		{"set known by name", func(h *Header) { h.Set("via", []byte("9")) }, "X-A: 1\nX-B: 2\nX-B: 3\nVia: 9\n"},
		{"set a new known one", func(h *Header) { h.SetKnown(NameDate, []byte("9")) }, "X-A: 1\nX-B: 2\nX-B: 3\nVia: 4\nVia: 5\ndate: 9\n"},
		{"set value at", func(h *Header) { h.SetValueAt(1, []byte("9")) }, "X-A: 1\nX-B: 9\nX-B: 3\nVia: 4\nVia: 5\n"},
		{"add", func(h *Header) { h.Add([]byte("DATE"), []byte("9")) }, "X-A: 1\nX-B: 2\nX-B: 3\nVia: 4\nVia: 5\nDATE: 9\n"},
		{"reset", func(h *Header) { h.Reset() }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := header("X-A", "1", "X-B", "2", "X-B", "3", "Via", "4", "Via", "5")
			c.do(h)
			if got := listing(h); got != c.want {
				t.Errorf("listing\n%swant\n%s", got, c.want)
			}
			if got, want := h.Len(), strings.Count(c.want, "\n"); got != want {
				t.Errorf("length %d, want %d", got, want)
			}
			if got, want := string(h.AppendFields(nil)), strings.ReplaceAll(c.want, "\n", "\r\n"); got != want {
				t.Errorf("on the wire %q, want %q", got, want)
			}
		})
	}
}

func TestAHeaderHoldsNothingUnfitForTheWire(t *testing.T) {
	h := header("", "empty name", "bad name", "x", "bad\r\nname", "x", "x-colon:", "x", "X-\xc3\xa9", "x",
		"ok", "a\r\nInjected: b\x00c\x7f", "tab", "\ta\tb\t", "spaces", "  ", "controls", "\r\n \x00")
	h.Add([]byte("also bad"), []byte("x"))
	h.Add([]byte("Fine"), []byte("\xff\x80"))
	h.Set("not fine", []byte("x"))
	want := "ok: a  Injected: b c\ntab: a\tb\nspaces: \ncontrols: \nFine: \xff\x80\n"
	if got := listing(h); got != want {
		t.Errorf("listing\n%q, want\n%q", got, want)
	}
	h.Set("ok", []byte("\nagain\n"))
	if got := h.Get("ok"); string(got) != "again" {
		t.Errorf("set to %q", got)
	}
}

func TestABorrowedBufferIsNeverWrittenTo(t *testing.T) {
	const text = "A: 1\r\nB: 2\r\n\r\nwhat follows"
	input := []byte(text)
	borrow := func(h *Header) {
		h.SetBuffer(input)
		h.AddSpan(0, 1, 3, 4, NameOther)
		h.AddSpan(6, 7, 9, 10, NameOther)
		h.TrimBuffer(14)
	}
	var h Header
	for name, do := range map[string]func(){
		"add":       func() { h.AddString("x", "y") },
		"set":       func() { h.Set("a", []byte("longer")) },
		"reset":     func() { h.Reset(); h.AddString("x", "y") },
		"copy from": func() { h.CopyFrom(header("x", "y")) },
	} {
		borrow(&h)
		do()
		if string(input) != text {
			t.Fatalf("%s wrote to the input: %q", name, input)
		}
	}
	borrow(&h)
	if got := string(h.AppendFields(nil)); got != "A: 1\r\nB: 2\r\n" || h.Size() != 14 {
		t.Errorf("on the wire %q, size %d", got, h.Size())
	}
}

// TestFieldsOnTheWireAreThoseOfTheList compares the copying of runs with the
// plain way, over random changes to random heads.
func TestFieldsOnTheWireAreThoseOfTheList(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	separators := []string{": ", ":", ":  ", ":\t"}
	ends := []string{"\r\n", " \r\n"}
	for range 2000 {
		var in []byte
		var h Header
		type at struct{ a, b, c, d int }
		var spans []at
		for i := range r.IntN(8) {
			a := len(in)
			in = fmt.Appendf(in, "Name%d", i)
			b := len(in)
			in = append(in, separators[r.IntN(len(separators))]...)
			c := len(in)
			in = fmt.Appendf(in, "value%d", i)
			spans = append(spans, at{a, b, c, len(in)})
			in = append(in, ends[r.IntN(len(ends))]...)
		}
		h.SetBuffer(in)
		for _, s := range spans {
			h.AddSpan(s.a, s.b, s.c, s.d, NameOther)
		}
		for range r.IntN(4) {
			switch n := r.IntN(4); {
			case n == 0 && h.Slots() > 0:
				h.RemoveAt(r.IntN(h.Slots()))
			case n == 1 && h.Slots() > 0:
				h.SetValueAt(r.IntN(h.Slots()), []byte("changed"))
			case n == 2:
				h.AddString("added", "value")
			default:
				h.Set("name3", []byte("set"))
			}
		}
		want := strings.ReplaceAll(listing(&h), "\n", "\r\n")
		if got := string(h.AppendFields(nil)); got != want {
			t.Fatalf("on the wire %q, want %q", got, want)
		}
	}
}

func TestShrinkLetsGoOfWhatIsLarge(t *testing.T) {
	h := header("a", strings.Repeat("x", 5000))
	for range 500 {
		h.AddString("b", "c")
	}
	h.Reset()
	h.Shrink(4096)
	if cap(h.buf) != 0 || cap(h.fields) != 0 {
		t.Errorf("%d bytes and %d fields kept", cap(h.buf), cap(h.fields))
	}
	h.AddString("a", "b")
	h.Shrink(4096)
	if got := listing(h); got != "a: b\n" {
		t.Errorf("a small list lost its fields: %q", got)
	}
}

func TestCopiesAreIndependent(t *testing.T) {
	var a, b RequestHead
	a.SetMethod([]byte("GET"))
	a.SetPath([]byte("/p"))
	a.SetAuthority([]byte("h"))
	a.SetScheme([]byte("http"))
	a.SetUpgrade([]byte("websocket"))
	a.AddString("x", "y")
	b.CopyFrom(&a)
	a.Reset()
	a.SetPath([]byte("/overwritten-and-longer"))
	got := fmt.Sprintf("%s %s %s %s %s %v %v %s", b.MethodBytes(), b.Scheme(), b.Authority(), b.Path(), b.UpgradeProtocol(),
		b.Upgrade, b.Method == MethodGet, listing(&b.Header))
	if want := "GET http h /p websocket true true x: y\n"; got != want {
		t.Errorf("copy %q, want %q", got, want)
	}

	var c, d ResponseHead
	c.Status = 200
	c.SetReason([]byte("Fine\r\n"))
	c.SetUpgrade([]byte("x"))
	c.AddString("x", "y")
	d.CopyFrom(&c)
	c.Reset()
	c.SetReason([]byte("overwritten"))
	got = fmt.Sprintf("%d %s %s %s", d.Status, d.Reason(), d.UpgradeProtocol(), listing(&d.Header))
	if want := "200 Fine x x: y\n"; got != want {
		t.Errorf("copy %q, want %q", got, want)
	}
}

func TestSpansOfHeadsReferToTheBuffer(t *testing.T) {
	in := []byte("PUT http host /path ws Reason")
	var h RequestHead
	h.SetBuffer(in)
	h.SetMethodSpan(0, 3)
	h.SetSchemeSpan(4, 8)
	h.SetAuthoritySpan(9, 13)
	h.SetPathSpan(14, 19)
	h.SetUpgradeSpan(20, 22)
	if got := bytes.Join([][]byte{h.MethodBytes(), h.Scheme(), h.Authority(), h.Path(), h.UpgradeProtocol()}, []byte{' '}); string(got) != string(in[:22]) {
		t.Errorf("parts %q", got)
	}
	var r ResponseHead
	r.SetBuffer(in)
	r.SetUpgradeSpan(20, 22)
	r.SetReasonSpan(23, 29)
	if string(r.Reason()) != "Reason" || string(r.UpgradeProtocol()) != "ws" {
		t.Errorf("reason %q, upgrade %q", r.Reason(), r.UpgradeProtocol())
	}
}

func TestMethodsAreKnownByTheirExactToken(t *testing.T) {
	for token, want := range map[string]Method{
		"GET": MethodGet, "HEAD": MethodHead, "POST": MethodPost, "PUT": MethodPut, "DELETE": MethodDelete,
		"CONNECT": MethodConnect, "OPTIONS": MethodOptions, "TRACE": MethodTrace, "PATCH": MethodPatch,
		"get": MethodOther, "GETX": MethodOther, "": MethodOther,
	} {
		if got := ParseMethod([]byte(token)); got != want {
			t.Errorf("method %q is %d, want %d", token, got, want)
		}
	}
	for m, want := range map[Method]bool{MethodGet: true, MethodPut: true, MethodPost: false, MethodPatch: false, MethodOther: false, MethodConnect: false} {
		if got := m.Idempotent(); got != want {
			t.Errorf("method %d idempotent: %v, want %v", m, got, want)
		}
	}
	for p, want := range map[Protocol]string{HTTP10: "HTTP/1.0", HTTP11: "HTTP/1.1", HTTP2: "HTTP/2"} {
		if got := p.String(); got != want {
			t.Errorf("protocol %d is %q, want %q", p, got, want)
		}
	}
}

func TestAWarmHeaderAllocatesNothing(t *testing.T) {
	src := header("X-A", "1", "Via", "2", "traceparent", "3")
	var h Header
	var out []byte
	name, value := []byte("X-New"), []byte("value")
	run := func() {
		h.CopyFrom(src)
		h.Add(name, value)
		h.AddKnown(NameXRequestID, value)
		h.SetKnown(NameTraceparent, value)
		h.Set("x-a", value)
		h.Remove("via")
		_ = h.Get("x-new")
		out = h.AppendFields(out[:0])
		out, _ = h.AppendJoined(out, "x-a")
	}
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
