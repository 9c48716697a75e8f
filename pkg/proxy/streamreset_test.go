// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// rude is an endpoint of HTTP/2 that does with each request what serve says.
type rude struct {
	*http2.Framer
	conn net.Conn
	path string
	id   uint32
	n    int64 // of the request, from 1
}

func rudeBackend(t testing.TB, serve func(*rude)) (addr string, requests *atomic.Int64) {
	requests = new(atomic.Int64)
	return scripted(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		r := &rude{Framer: http2.NewFramer(c, bufio.NewReader(c)), conn: c}
		r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = r.WriteSettings()
		for {
			f, err := r.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					_ = r.WriteSettingsAck()
				}
			case *http2.MetaHeadersFrame:
				r.id, r.path, r.n = f.StreamID, f.PseudoValue("path"), requests.Add(1)
				serve(r)
			}
		}
	}), requests
}

func (r *rude) answer(body string, last bool) {
	var b bytes.Buffer
	_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: r.id, BlockFragment: b.Bytes(), EndHeaders: true})
	_ = r.WriteData(r.id, last, []byte(body))
}

func (r *rude) reset(code http2.ErrCode) { _ = r.WriteRSTStream(r.id, code) }

// end ends the connection, and reads on: with something unread, the kernel would reset it,
// and take away what was said before.
func (r *rude) end() { _ = r.conn.(*net.TCPConn).CloseWrite() }

// resets are ways to end a stream, with what Envoy 1.40 says of each before and within a
// response.
var resets = []struct {
	name      string
	by        func(*rude)
	flag      string
	status    int
	reason    string
	processed bool // it may have been
}{
	{"REFUSED_STREAM", func(r *rude) { r.reset(http2.ErrCodeRefusedStream) }, "UR", 503, "remote_refused_stream_reset", false},
	{"GOAWAY below it", func(r *rude) { _ = r.WriteGoAway(0, http2.ErrCodeNo, nil) }, "UR", 503, "remote_refused_stream_reset", false},
	{"GOAWAY below it and the end", func(r *rude) { _ = r.WriteGoAway(0, http2.ErrCodeNo, nil); r.end() }, "UR", 503, "remote_refused_stream_reset", false},
	{"GOAWAY and the end", func(r *rude) { _ = r.WriteGoAway(r.id, http2.ErrCodeNo, nil); r.end() }, "UC", 503, "connection_termination", true},
	{"CANCEL", func(r *rude) { r.reset(http2.ErrCodeCancel) }, "UR", 503, "remote_reset", true},
	{"NO_ERROR", func(r *rude) { r.reset(http2.ErrCodeNo) }, "UR", 503, "remote_reset", true},
	{"CONNECT_ERROR", func(r *rude) { r.reset(http2.ErrCodeConnect) }, "UR", 503, "remote_error_with_CONNECT_request", true},
	{"PROTOCOL_ERROR", func(r *rude) { r.reset(http2.ErrCodeProtocol) }, "UPE", 502, "protocol_error", true},
}

// ofHTTP1And2 runs a test with clients of both.
func ofHTTP1And2(t *testing.T, test func(t *testing.T, c *http.Client)) {
	for _, h2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "h1", true: "h2"}[h2], func(t *testing.T) { test(t, protocolClient(t, h2)) })
	}
}

// send sends a request with a body.
func (r *rig) send(c *http.Client, method, path string) (*http.Response, string, error) {
	r.t.Helper()
	q, err := http.NewRequest(method, "http://"+r.addr+path, strings.NewReader("all of it"))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := c.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return resp, string(body), err
}

func TestWhatIsSaidOfAStreamThatIsReset(t *testing.T) {
	ofHTTP1And2(t, func(t *testing.T, c *http.Client) {
		for _, tt := range resets {
			t.Run(tt.name, func(t *testing.T) {
				read := make(chan struct{})
				b, _ := rudeBackend(t, func(u *rude) {
					if u.path == "/begun" {
						u.answer("half", false)
						<-read
					}
					tt.by(u)
				})
				var logged func(string)
				r := newRig(t, func(s *resource.Snapshot) {
					logged = logTo(t, s, "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
					withCluster(s, "c", b).HTTP2 = true
				})
				want := "upstream connect error or disconnect/reset before headers. reset reason: " + strings.ReplaceAll(tt.reason, "_", " ")
				if resp, body, err := r.send(c, "POST", "/"); err != nil || resp.StatusCode != tt.status || body != want {
					t.Errorf("%d %q, %v", resp.StatusCode, body, err)
				}
				logged(fmt.Sprintf("/ %d %s upstream_reset_before_response_started{%s}\n", tt.status, tt.flag, tt.reason))

				resp, err := c.Get("http://" + r.addr + "/begun")
				if err != nil {
					t.Fatal(err)
				}
				close(read)
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 200 || string(body) != "half" || err == nil {
					t.Errorf("an answer that was cut: %d %q, %v", resp.StatusCode, body, err)
				}
				logged(fmt.Sprintf("/begun 200 %s upstream_reset_after_response_started{%s}\n", tt.flag, tt.reason))
			})
		}
	})
}

func TestStreamsThatAreResetFallBackToAnotherCluster(t *testing.T) {
	ofHTTP1And2(t, func(t *testing.T, c *http.Client) {
		for _, tt := range resets {
			t.Run(tt.name, func(t *testing.T) {
				b, _ := rudeBackend(t, func(u *rude) {
					if u.path == "/begun" {
						u.answer("half", false)
					}
					tt.by(u)
				})
				var seen atomic.Int64
				good := backend(t, func(w http.ResponseWriter, q *http.Request) {
					seen.Add(1)
					_, _ = io.Copy(w, q.Body)
				})
				var logged func(string)
				r := newRig(t, func(s *resource.Snapshot) {
					logged = logTo(t, s, "%REQ(:METHOD)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER%")
					cluster := withCluster(s, "c", b)
					cluster.HTTP2, cluster.Fallback = true, standby
					cluster.Breaker = circuitOf(func(b *resource.CircuitBreaker) { b.RequestVolumeThreshold = 1000 })
					withCluster(s, "standby", good)
				})
				for _, method := range []string{"PUT", "POST"} {
					stays := tt.processed && method == "POST"
					resp, body, err := r.send(c, method, "/")
					switch {
					case err != nil:
						t.Error(err)
					case stays && resp.StatusCode != tt.status, !stays && (resp.StatusCode != 200 || body != "all of it"):
						t.Errorf("%s: %d %q", method, resp.StatusCode, body)
					case !stays:
						logged(fmt.Sprintf("%s 200 %s fallback_cluster standby\n", method, tt.flag))
					}
				}
				before := seen.Load()
				if _, body, err := r.send(c, "PUT", "/begun"); err == nil || !strings.HasPrefix("half", body) || seen.Load() != before {
					t.Errorf("of an answer that has begun came %q, %v, and %d requests went to the other cluster", body, err, seen.Load()-before)
				}
				if tt.processed {
					r.awaitFallbacks("c", "success 1 failure 0 rejection 0 missing 1")
				} else {
					r.awaitFallbacks("c", "success 2 failure 0 rejection 0 missing 0")
				}
			})
		}
	})
}

func TestTheLastGoodAnswerStandsForOneThatIsReset(t *testing.T) {
	ofHTTP1And2(t, func(t *testing.T, c *http.Client) {
		var code atomic.Uint32
		b, _ := rudeBackend(t, func(u *rude) {
			if code.Load() == 0 {
				u.answer("good", true)
			} else {
				u.reset(http2.ErrCode(code.Load()))
			}
		})
		r := newRig(t, func(s *resource.Snapshot) {
			cluster := withCluster(s, "c", b)
			cluster.HTTP2 = true
			cluster.Fallback = &resource.Fallback{Cached: &resource.CachedFallback{MaxAge: time.Minute, MaxBody: 1024}}
		})
		for _, by := range []http2.ErrCode{0, http2.ErrCodeCancel, http2.ErrCodeRefusedStream} {
			code.Store(uint32(by))
			resp, err := c.Get("http://" + r.addr + "/")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || string(body) != "good" || (resp.Header.Get("Cache-Status") != "") != (by != 0) {
				t.Errorf("by %s: %d %q %v, %v", by, resp.StatusCode, body, resp.Header, err)
			}
		}
	})
}

// A refused stream was not looked at, so that even a POST is sent again: once by itself,
// then as often as a policy for it says.
func TestRefusedStreamsAreRetriedByTheirCondition(t *testing.T) {
	for _, tt := range []struct {
		on       resource.RetryOn
		code     http2.ErrCode
		status   int
		attempts int64
	}{
		{0, http2.ErrCodeRefusedStream, 503, 2},
		{resource.RetryConnectFailure, http2.ErrCodeRefusedStream, 503, 2},
		{resource.RetryRefusedStream, http2.ErrCodeRefusedStream, 200, 4},
		{resource.RetryReset, http2.ErrCodeRefusedStream, 200, 4},
		{resource.RetryRefusedStream, http2.ErrCodeCancel, 503, 1},
		{resource.RetryReset, http2.ErrCodeCancel, 200, 4},
	} {
		t.Run(fmt.Sprint(tt.on, tt.code), func(t *testing.T) {
			b, requests := rudeBackend(t, func(u *rude) {
				if u.n == 4 {
					u.answer("ok", true)
				} else {
					u.reset(tt.code)
				}
			})
			r := newRig(t, func(s *resource.Snapshot) {
				withCluster(s, "c", b).HTTP2 = true
				if tt.on != 0 {
					s.Routes["r"].VirtualHosts[0].Routes[0].Action.Retry = &resource.RetryPolicy{On: tt.on, NumRetries: 3, BaseInterval: time.Millisecond}
				}
			})
			if resp, body, err := r.send(r.client(), "POST", "/"); err != nil || resp.StatusCode != tt.status || requests.Load() != tt.attempts {
				t.Errorf("%d %q after %d requests, %v", resp.StatusCode, body, requests.Load(), err)
			}
		})
	}
}
