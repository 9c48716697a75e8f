// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// seedScripts adds the bytes of all scripts of a kind, and the smuggling cases.
func seedScripts(f *testing.F, command string, add func(in []byte)) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("scripts: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "\n\n") {
			input, _, _ := strings.Cut(block, "----\n")
			lines := strings.Split(strings.TrimSuffix(input, "\n"), "\n")
			if len(lines) < 2 || !strings.HasPrefix(lines[1], command) {
				continue
			}
			// Scripts unquote with the help of a test; what does not unquote is
			// no worse a seed as it is.
			in := strings.ReplaceAll(strings.Join(lines[2:], "\r\n"), "\r\n.\r\n", "\r\n\r\n")
			if len(in) < 4096 {
				add([]byte(strings.TrimSuffix(in, ".") + "\r\n"))
			}
		}
	}
}

// pieces cuts in at places that seed chooses.
func pieces(in []byte, seed uint64) []int {
	var cut []int
	for at := 0; at < len(in); {
		seed = seed*6364136223846793005 + 1442695040888963407
		at += 1 + int(seed>>33)%(1+int(seed>>59))
		cut = append(cut, min(at, len(in)))
	}
	return cut
}

// fuzzLimits are small, so that short inputs reach them.
var fuzzLimits = Limits{HeadBytes: 256, HeaderCount: 8, TargetBytes: 64, ChunkExtBytes: 32, BodyBytes: 128}

// FuzzRequestDecoder: no panic; the same events however the bytes are cut; what
// is accepted is the same after encoding and decoding again, and is the same
// for net/http.
func FuzzRequestDecoder(f *testing.F) {
	seed := func(in []byte) { f.Add(in, uint64(len(in)), false) }
	seedScripts(f, "request", seed)
	for _, c := range smuggled {
		if len(c.in) < 4096 {
			f.Add([]byte(c.in+hidden), uint64(1), true)
		}
	}
	seed([]byte(benchRequest + benchRequest))
	seed([]byte("GET http://%e4/ HTTP/1.1\r\nHost: %e4\r\n\r\nCONNECT a%E4:1 HTTP/1.1\r\nHost: a%E4:1\r\n\r\n"))
	for _, body := range longChunked {
		seed([]byte(chunked(body)))
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, small bool) {
		var l Limits
		if small {
			l = fuzzLimits
		}
		whole := newRequestPeer(l)
		whole.feed(in)
		cut := newRequestPeer(l)
		feedCut(cut, in, pieces(in, seed))
		if a, b := whole.result(), cut.result(); a != b {
			t.Fatalf("cut at %v:\n%swhole:\n%s", pieces(in, seed), b, a)
		}
		checkAccepted(t, in)
	})
}

// message is a request that was read to its end.
type message struct {
	head    codec.RequestHead
	body    []byte
	trailer codec.Header
	size    int // bytes of it, and of empty lines before it
	blank   int // bytes of those
}

// readMessages reads the complete requests that in begins with.
func readMessages(in []byte) []*message {
	var (
		d        = NewRequestDecoder(Limits{})
		h        codec.RequestHead
		messages []*message
	)
	for len(in) > 0 {
		var r recorder
		n, err := d.Decode(in, &h, &r)
		if err != nil || !d.Done() {
			break
		}
		m := &message{head: r.head, body: r.body, trailer: r.tail, size: n}
		for bytes.HasPrefix(in[m.blank:], []byte("\r\n")) {
			m.blank += 2
		}
		messages = append(messages, m)
		in = in[n:]
		d.NextMessage()
	}
	return messages
}

func checkAccepted(t *testing.T, in []byte) {
	for _, m := range readMessages(in) {
		checkAgainstNetHTTP(t, m, in[:m.size])
		checkRoundTrip(t, m)
		in = in[m.size:]
	}
}

// longChunked are bodies of which net/http reads the head but not the rest.
var longChunked = []string{
	"3;" + strings.Repeat("x", 5000) + "\r\nabc\r\n0\r\n\r\n",
	"3\r\nabc\r\n0\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n",
}

// tooLong tells whether net/http gave a body up for bounds of its own, which are not ours:
// lines and trailers of 4 KiB, and how much of it may be chunks' heads.
func tooLong(err error) bool {
	return errors.Is(err, http.ErrLineTooLong) || err != nil &&
		(strings.Contains(err.Error(), "suspiciously long trailer") || strings.Contains(err.Error(), "too much non-data"))
}

// sameHost: net/http decodes what is not ASCII in a target's host.
func sameHost(theirs string, h *codec.RequestHead) bool {
	ours := string(h.Authority())
	if strings.EqualFold(theirs, ours) {
		return true
	}
	decoded, err := url.PathUnescape(ours)
	return err == nil && h.Form != codec.OriginForm && strings.EqualFold(theirs, decoded)
}

// checkAgainstNetHTTP: the same method, target, host, body, and end of the
// message. What net/http refuses, it need not agree on.
func checkAgainstNetHTTP(t *testing.T, m *message, in []byte) bool {
	const behind = "bytes that follow"
	r := bufio.NewReader(io.MultiReader(bytes.NewReader(in[m.blank:]), strings.NewReader(behind)))
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	if req.Method != string(m.head.MethodBytes()) {
		t.Fatalf("%q: method %q, net/http %q", in, m.head.MethodBytes(), req.Method)
	}
	if m.head.Form == codec.OriginForm && req.RequestURI != string(m.head.Path()) {
		t.Fatalf("%q: path %q, net/http %q", in, m.head.Path(), req.RequestURI)
	}
	if !sameHost(req.Host, &m.head) {
		t.Fatalf("%q: authority %q, net/http %q", in, m.head.Authority(), req.Host)
	}
	if m.head.BodyLength != req.ContentLength {
		t.Fatalf("%q: length %d, net/http %d", in, m.head.BodyLength, req.ContentLength)
	}
	body, err := io.ReadAll(req.Body)
	if tooLong(err) {
		return false
	}
	if err != nil || !bytes.Equal(body, m.body) {
		t.Fatalf("%q: body %q, net/http %q, %v", in, m.body, body, err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != behind {
		t.Fatalf("%q: net/http sees %q behind the message", in, rest)
	}
	for i := range m.head.Slots() {
		name, value, id, ok := m.head.At(i)
		if ok && id != codec.NameTrailer && // which net/http keeps elsewhere
			!bytes.Contains([]byte(strings.Join(req.Header.Values(string(name)), "\n")), value) {
			t.Fatalf("%q: field %q is %q, net/http %q", in, name, value, req.Header.Values(string(name)))
		}
	}
	return true
}

// encode writes a message as a proxy sends it on.
func (m *message) encode() []byte {
	out := AppendRequest(nil, &m.head)
	if m.head.BodyLength != codec.BodyChunked {
		return append(out, m.body...)
	}
	half := len(m.body) / 2
	out = AppendChunk(out, m.body[:half])
	out = AppendChunk(out, m.body[half:])
	return AppendLastChunk(out, &m.trailer)
}

func checkRoundTrip(t *testing.T, m *message) {
	if len(m.head.Authority()) == 0 {
		return // HTTP/1.0 without Host has no HTTP/1.1 form that we accept
	}
	wire := m.encode()
	again := readMessages(wire)
	if len(again) != 1 || again[0].size != len(wire) {
		t.Fatalf("%q is read again as %d messages", wire, len(again))
	}
	// The next hop gets HTTP/1.1 in origin form.
	want, got := m.summary(), again[0].summary()
	if got != want {
		t.Fatalf("%q is read again as\n%swant\n%s", wire, got, want)
	}
	if twice := again[0].encode(); !bytes.Equal(twice, wire) {
		t.Fatalf("encoded again as\n%q, first\n%q", twice, wire)
	}
}

// summary is what must survive being sent on.
func (m *message) summary() string {
	var r recorder
	h := m.head
	h.Protocol, h.Form = codec.HTTP11, codec.OriginForm
	h.SetScheme(nil)
	if m.head.Upgrade {
		h.KeepAlive = true // an upgrade is not told to close as well
	}
	_ = r.RequestHead(0, &h, false)
	_ = r.Data(0, m.body, true)
	r.fields(&m.trailer)
	return r.out.String()
}

// FuzzResponseDecoder: no panic, the same events however the bytes are cut, and
// the same body and end as net/http where both accept.
func FuzzResponseDecoder(f *testing.F) {
	seedScripts(f, "response", func(in []byte) {
		f.Add(in, uint64(len(in)), uint8(1), false)
		f.Add(in, uint64(1), uint8(2), true)
	})
	f.Add([]byte(benchResponse), uint64(3), uint8(1), true)
	for _, body := range longChunked {
		f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+body), uint64(1), uint8(codec.MethodGet), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, method uint8, eof bool) {
		m := codec.Method(method % uint8(codec.MethodPatch+1))
		run := func(cut []int) string {
			p, d := newResponsePeer(Limits{}, seed%2 == 0, m)
			feedCut(p, in, cut)
			if eof && p.err == nil {
				p.err = d.EOF(&p.recorder)
			}
			return p.result()
		}
		if a, b := run([]int{len(in)}), run(pieces(in, seed)); a != b {
			t.Fatalf("cut at %v:\n%swhole:\n%s", pieces(in, seed), b, a)
		}
		checkResponseAgainstNetHTTP(t, m, in)
	})
}

func checkResponseAgainstNetHTTP(t *testing.T, m codec.Method, in []byte) {
	name := map[codec.Method]string{codec.MethodGet: "GET", codec.MethodHead: "HEAD", codec.MethodPost: "POST"}[m]
	d := NewResponseDecoder(Limits{})
	d.Expect(m)
	var h codec.ResponseHead
	var r recorder
	n, err := d.Decode(in, &h, &r)
	if name == "" || err != nil || !d.Done() || r.resp.Status < 200 || bytes.Contains(r.outBytes(), []byte("informational")) {
		return
	}
	checkResponseRoundTrip(t, m, &r)
	const behind = "bytes that follow"
	br := bufio.NewReader(io.MultiReader(bytes.NewReader(in[:n]), strings.NewReader(behind)))
	res, err := http.ReadResponse(br, &http.Request{Method: name})
	if err != nil {
		return
	}
	body, err := io.ReadAll(res.Body)
	if tooLong(err) {
		return
	}
	if res.StatusCode != r.resp.Status || err != nil || !bytes.Equal(body, r.body) {
		t.Fatalf("%q: %d %q, net/http %d %q, %v", in, r.resp.Status, r.body, res.StatusCode, body, err)
	}
	if rest, _ := io.ReadAll(br); string(rest) != behind {
		t.Fatalf("%q: net/http sees %q behind the message", in, rest)
	}
}

// checkResponseRoundTrip: what goes to a client of either version has the status,
// fields and body of what came, and ends where the client thinks it ends.
func checkResponseRoundTrip(t *testing.T, m codec.Method, r *recorder) {
	for _, to := range []codec.Protocol{codec.HTTP11, codec.HTTP10} {
		wire := AppendResponse(nil, &r.resp, to, true)
		framing, _ := FramingFor(&r.resp, to, true)
		switch framing {
		case FramingChunked:
			wire = AppendLastChunk(AppendChunk(wire, r.body), &r.tail)
		case FramingLength, FramingClose:
			wire = append(wire, r.body...)
		}
		p, d := newResponsePeer(Limits{}, false, m)
		p.feed(wire)
		if p.err == nil && framing == FramingClose {
			p.err = d.EOF(&p.recorder)
		}
		if p.err != nil || !d.Done() || len(p.pending) > 0 {
			t.Fatalf("%q for %v: %v, %q left", wire, to, p.err, p.pending)
		}
		want, got := fmt.Sprintf("%d %q\n", r.resp.Status, r.body), fmt.Sprintf("%d %q\n", p.resp.Status, p.body)
		if framing == FramingNone {
			want, got = fmt.Sprintln(r.resp.Status), fmt.Sprintln(p.resp.Status)
		}
		var a, b recorder
		if framing != FramingChunked {
			r.resp.RemoveKnown(codec.NameTrailer) // announces nothing without chunks
		}
		a.fields(&r.resp.Header)
		b.fields(&p.resp.Header)
		if framing == FramingChunked {
			a.fields(&r.tail)
			b.fields(&p.tail)
		}
		if want+a.out.String() != got+b.out.String() {
			t.Fatalf("%q is read again as\n%s%swant\n%s%s", wire, got, b.out.String(), want, a.out.String())
		}
	}
}

func (r *recorder) outBytes() []byte { return []byte(r.out.String()) }

// FuzzChunked: the body of any chunks is the same however it is cut, and the
// same as net/http's. What was written in chunks is read as it was.
func FuzzChunked(f *testing.F) {
	for _, c := range smuggled {
		if _, body, ok := strings.Cut(c.in, "chunked\r\n\r\n"); ok && len(body) < 4096 {
			f.Add([]byte(body), uint64(7))
		}
	}
	f.Add([]byte("5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n"), uint64(9))
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		in := append([]byte(chunked("")), body...)
		whole, cut := newRequestPeer(fuzzLimits), newRequestPeer(fuzzLimits)
		whole.feed(in)
		feedCut(cut, in, pieces(in, seed))
		if a, b := whole.result(), cut.result(); a != b {
			t.Fatalf("cut at %v:\n%swhole:\n%s", pieces(in, seed), b, a)
		}
		checkAccepted(t, in)

		written := []byte(chunked(""))
		at := 0
		for _, end := range pieces(body, seed) {
			written = AppendChunk(written, body[at:end])
			at = end
		}
		messages := readMessages(AppendLastChunk(written, nil))
		if len(messages) != 1 || !bytes.Equal(messages[0].body, body) {
			t.Fatalf("%q written in chunks is read as %d messages", body, len(messages))
		}
	})
}

// TestNetHTTPAgreesOnOrdinaryRequests keeps the comparison from passing because
// net/http refuses everything.
func TestNetHTTPAgreesOnOrdinaryRequests(t *testing.T) {
	in := benchRequest + post + "Content-Length: 3\r\n\r\nabc" + chunked("3\r\nabc\r\n0\r\nX: y\r\n\r\n") +
		"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\nCONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nOPTIONS * HTTP/1.0\r\nHost: a\r\n\r\n"
	messages := readMessages([]byte(in))
	if len(messages) != 6 {
		t.Fatalf("%d messages, want 6", len(messages))
	}
	for _, m := range messages {
		if !checkAgainstNetHTTP(t, m, []byte(in[:m.size])) {
			t.Errorf("net/http refuses %q", in[:m.size])
		}
		checkRoundTrip(t, m)
		in = in[m.size:]
	}
}
