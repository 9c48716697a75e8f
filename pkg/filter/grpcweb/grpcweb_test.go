// SPDX-License-Identifier: Apache-2.0

package grpcweb

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

var update = flag.Bool("update", false, "rewrite the scripts' answers")

// A script is a list of steps, each with what came of it:
//
//	request [method M] [field: value]…   OnRequest
//	data "bytes" [last]                  TransformRequest
//	response STATUS [field: value]…      OnResponse
//	answer "bytes" [last]                TransformResponse
//	trailer [field: value]…              TransformTrailer
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("got\n%s\nwant\n%s", got, text)
			}
		})
	}
}

func newFilter() *webFilter { return Spec().New(nil, filter.Worker{}).(*webFilter) }

func newExchange() *filter.Exchange { return &filter.Exchange{Slots: make([]any, 1)} }

// play runs the steps of a script and writes what comes of each behind it.
func play(t *testing.T, script string) string {
	f, x := newFilter(), newExchange()
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "->") {
			continue
		}
		fmt.Fprintln(&out, line)
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "", "#":
			continue
		case "request":
			f.OnDone(x)
			x = newExchange()
			x.Request.SetMethod([]byte("POST"))
			x.Request.BodyLength = 10
			fields(&x.Request.Header, rest)
			f.OnRequest(x)
			fmt.Fprintf(&out, "-> %s, length %d, trailers %v\n", listing(&x.Request.Header), x.Request.BodyLength, x.Request.TETrailers)
		case "data":
			chunk, last := bytesOf(t, rest)
			b, ok := f.TransformRequest(x, chunk, last)
			if fmt.Fprintf(&out, "-> %q", b); !ok {
				out.WriteString(" broken")
			}
			out.WriteString("\n")
		case "response":
			status, rest, _ := strings.Cut(rest, " ")
			x.Response.Status, _ = strconv.Atoi(status)
			x.Response.BodyLength = 10
			fields(&x.Response.Header, rest)
			f.OnResponse(x)
			fmt.Fprintf(&out, "-> %s, length %d\n", listing(&x.Response.Header), x.Response.BodyLength)
		case "answer":
			chunk, last := bytesOf(t, rest)
			fmt.Fprintf(&out, "-> %q\n", f.TransformResponse(x, chunk, last))
		case "trailer":
			var h codec.Header
			fields(&h, rest)
			b, ok := f.TransformTrailer(x, &h)
			fmt.Fprintf(&out, "-> %q %v\n", b, ok)
		default:
			t.Fatalf("no step %q", word)
		}
	}
	return out.String()
}

func fields(h *codec.Header, text string) {
	for part := range strings.SplitSeq(text, " | ") {
		if name, value, ok := strings.Cut(part, ": "); ok {
			h.AddString(name, value)
		}
	}
}

func listing(h *codec.Header) string {
	var list []string
	for i := range h.Slots() {
		if name, value, _, ok := h.At(i); ok {
			list = append(list, fmt.Sprintf("%s: %s", name, value))
		}
	}
	return strings.Join(list, " | ")
}

func bytesOf(t *testing.T, text string) (b []byte, last bool) {
	text, last = strings.CutSuffix(text, " last")
	s, err := strconv.Unquote(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return []byte(s), last
}

func TestABodyIsDecodedHoweverItIsCut(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		var want, text []byte
		for range 1 + r.IntN(4) { // padding in the middle
			part := make([]byte, r.IntN(40))
			for i := range part {
				part[i] = byte(r.Uint32())
			}
			want, text = append(want, part...), base64.StdEncoding.AppendEncode(text, part)
		}
		var d decoder
		var got []byte
		for ok := true; len(text) > 0; {
			n := 1 + r.IntN(len(text))
			if got, ok = d.append(got, text[:n]); !ok {
				t.Fatalf("refused at %q", text)
			}
			text = text[n:]
		}
		if !bytes.Equal(got, want) || !d.whole() {
			t.Fatalf("got %x, want %x", got, want)
		}
	}
}

func TestACallAllocatesNothing(t *testing.T) {
	f, x := newFilter(), newExchange()
	chunk := bytes.Repeat([]byte("AAAA"), 1000)
	var trailer codec.Header
	trailer.AddString("grpc-status", "0")
	run := func() {
		x.Request.Reset()
		x.Request.SetMethod([]byte("POST"))
		x.Request.AddString("content-type", "application/grpc-web-text+proto")
		f.OnRequest(x)
		f.TransformRequest(x, chunk, true)
		x.Response.Reset()
		x.Response.AddString("content-type", "application/grpc+proto")
		f.OnResponse(x)
		f.TransformResponse(x, chunk, false)
		f.TransformTrailer(x, &trailer)
		f.OnDone(x)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAConfigurationHasNoFields(t *testing.T) {
	if _, err := Spec().Parse(nil); err != nil {
		t.Error(err)
	}
	if _, err := Spec().Parse([]byte{8, 1}); err == nil {
		t.Error("a field was taken")
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("AAAAAAE="), 3)
	f.Add([]byte("AA==AAA="), 1)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		var d decoder
		whole, ok := d.append(nil, text)
		ok = ok && d.whole()
		if len(text) > 0 {
			cut = int(uint(cut) % uint(len(text)))
			var e decoder
			got, ok1 := e.append(nil, text[:cut])
			ok2 := true
			if ok1 {
				got, ok2 = e.append(got, text[cut:])
			}
			if (ok1 && ok2 && e.whole()) != ok || ok && !bytes.Equal(got, whole) {
				t.Errorf("%q cut at %d: %x, %v; whole %x, %v", text, cut, got, ok1 && ok2, whole, ok)
			}
		}
		// What has no padding in the middle is what the standard library takes, but for
		// line ends.
		if want, err := base64.StdEncoding.Strict().DecodeString(string(text)); err == nil && !bytes.ContainsAny(text, "\r\n") {
			if !ok || !bytes.Equal(whole, want) {
				t.Errorf("%q: %x, %v, want %x", text, whole, ok, want)
			}
		} else if ok && bytes.IndexByte(bytes.TrimRight(text, "="), '=') < 0 {
			t.Errorf("%q was taken, though %v", text, err)
		}
	})
}
