// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"bytes"
	"math/rand/v2"
	"net/url"
	"testing"
	"time"
)

func TestContentTypesOfGRPCAreToldFromOthers(t *testing.T) {
	for in, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;charset=utf-8": true, "Application/GRPC+json": true,
		"application/grpc-web": false, "application/grpcx": false, "application/json": false, "": false,
	} {
		if got := IsContentType([]byte(in)); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
	for in, want := range map[string]Web{
		"application/grpc-web":            {Is: true, Rest: []byte{}},
		"application/grpc-web+proto":      {Is: true, Rest: []byte("+proto")},
		"application/grpc-web-text":       {Is: true, Text: true, Rest: []byte{}},
		"application/grpc-web-text+proto": {Is: true, Text: true, Rest: []byte("+proto")},
		"application/grpc-webby":          {},
		"application/grpc":                {},
	} {
		got := ParseWeb([]byte(in))
		if got.Is != want.Is || got.Text != want.Text || !bytes.Equal(got.Rest, want.Rest) {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	}
	if !AcceptedWeb([]byte("*/*, application/grpc-web-text")).Text || AcceptedWeb([]byte("application/grpc-web, application/grpc-web-text")).Text || AcceptedWeb(nil).Is {
		t.Error("the first kind that is accepted is not what counts")
	}
}

func TestAPathIsServiceAndMethod(t *testing.T) {
	for in, want := range map[string]string{
		"/a.b.C/D": "a.b.C|D", "/s/m?q=/x": "s|m", "/s/m/x": "", "/s": "", "//m": "", "/s/": "", "": "", "s/m": "",
	} {
		s, m, ok := SplitMethod([]byte(in))
		got := ""
		if ok {
			got = string(s) + "|" + string(m)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestStatusesAreReadAsTheyAreWritten(t *testing.T) {
	for s := range Statuses {
		got, ok := ParseStatus(s.Append(nil))
		if !ok || got != s {
			t.Errorf("%d: %d, %v", s, got, ok)
		}
	}
	for _, in := range []string{"", "-1", "17", "01", "20", "1x", "x", ":", "100", " 1"} {
		if s, ok := ParseStatus([]byte(in)); ok {
			t.Errorf("%q was taken for %d", in, s)
		}
	}
	if Status(200).HTTP() != 500 || Unavailable.HTTP() != 503 || OK.HTTP() != 200 || FromHTTP(503) != Unavailable || FromHTTP(418) != Unknown || FromHTTP(404) != Unimplemented {
		t.Error("a status is not mapped as it is meant to be")
	}
}

func TestAMessageIsPercentEncoded(t *testing.T) {
	for in, want := range map[string]string{
		"no healthy upstream": "no healthy upstream", "100 %": "100 %25", "a\nb\t\x7f": "a%0Ab%09%7F", "ü": "%C3%BC", "~": "~",
	} {
		got := string(AppendMessage(nil, []byte(in)))
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		if back, err := url.PathUnescape(got); err != nil || back != in {
			t.Errorf("%q was decoded to %q, %v", got, back, err)
		}
	}
}

func TestTimeoutsNeverGrowInTheirField(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond,
		"6n": 6, "0S": 0, "99999999H": MaxTimeout, "00000001S": time.Second,
	} {
		if got, ok := ParseTimeout([]byte(in)); !ok || got != want {
			t.Errorf("%q: %v, %v, want %v", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "S", "1", "1s", "-1S", "1.5S", "123456789S", " 1S", "1 S"} {
		if d, ok := ParseTimeout([]byte(in)); ok {
			t.Errorf("%q was taken for %v", in, d)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		d := time.Duration(r.Int64N(int64(1) << (1 + r.IntN(58))))
		v := AppendTimeout(nil, d)
		got, ok := ParseTimeout(v)
		if !ok || got > max(d, 1) || got < d-d/1_000 {
			t.Fatalf("%v was written %q, which is %v", d, v, got)
		}
	}
	if got := string(AppendTimeout(nil, -5)); got != "1n" {
		t.Errorf("what is over is %q", got)
	}
}

func TestMessagesAreCountedHoweverABodyIsCut(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var body []byte
		want := uint64(r.IntN(6))
		for range want {
			n := r.IntN(300) * r.IntN(2)
			body = append(AppendPrefix(body, byte(r.IntN(2)), n), make([]byte, n)...)
		}
		var c Counter
		got := uint64(0)
		for len(body) > 0 {
			n := 1 + r.IntN(len(body))
			got += c.Count(body[:n])
			body = body[n:]
		}
		if got != want || c != (Counter{}) {
			t.Fatalf("%d messages, want %d; %+v is left", got, want, c)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add([]byte("100m"), []byte("application/grpc-web-text+proto"), []byte("/s/m"))
	f.Fuzz(func(t *testing.T, timeout, content, path []byte) {
		if d, ok := ParseTimeout(timeout); ok {
			again, ok := ParseTimeout(AppendTimeout(nil, d))
			if !ok || again > max(d, 1) {
				t.Errorf("%q: %v became %v", timeout, d, again)
			}
		}
		if s, ok := ParseStatus(timeout); ok && !bytes.Equal(s.Append(nil), timeout) {
			t.Errorf("%q is not how %d is written", timeout, s)
		}
		if ParseWeb(content).Is && IsContentType(content) {
			t.Errorf("%q is both", content)
		}
		SplitMethod(path)
		var whole, pieces Counter
		want, got := whole.Count(content), uint64(0)
		for i := range content {
			got += pieces.Count(content[i : i+1])
		}
		if got != want || whole != pieces {
			t.Errorf("%d in one piece, %d in many", want, got)
		}
	})
}
