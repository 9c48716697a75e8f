// SPDX-License-Identifier: Apache-2.0

package hystrixstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
)

const (
	// MaxConnections is how many clients are served at once; more get 503.
	MaxConnections = 5

	defaultDelay = 500 * time.Millisecond
	minDelay     = 10 * time.Millisecond
	maxDelay     = time.Hour
	writeTimeout = 10 * time.Second
)

// Stream is the handler of /hystrix.stream.
type Stream struct {
	source  func() []breaker.Metrics
	clients atomic.Int32
	done    chan struct{}
	close   sync.Once
}

// Handler serves what the source returns at each interval; the source may be
// called by several goroutines at once. Give Close to http.Server's
// RegisterOnShutdown, or else Shutdown waits for clients that never leave.
func Handler(source func() []breaker.Metrics) *Stream {
	return &Stream{source: source, done: make(chan struct{})}
}

// Close ends all streams; new ones get 503.
func (s *Stream) Close() { s.close.Do(func() { close(s.done) }) }

// ServeHTTP streams until the client goes or Close is called. The parameter
// "delay" is the interval in milliseconds, 500 by default and 10 at least.
func (s *Stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	delay, err := parseDelay(r.URL.Query().Get("delay"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer s.clients.Add(-1)
	if s.clients.Add(1) > MaxConnections {
		http.Error(w, fmt.Sprintf("MaxConcurrentConnections reached: %d", MaxConnections), http.StatusServiceUnavailable)
		return
	}
	select {
	case <-s.done:
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	default:
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream;charset=UTF-8")
	h.Set("Cache-Control", "no-cache, no-store, max-age=0, must-revalidate")
	h.Set("Pragma", "no-cache")
	s.stream(w, r, delay)
}

func parseDelay(text string) (time.Duration, error) {
	if text == "" {
		return defaultDelay, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("delay: %q is no number of milliseconds", text)
	}
	return min(max(time.Duration(n)*time.Millisecond, minDelay), maxDelay), nil
}

func (s *Stream) stream(w http.ResponseWriter, r *http.Request, delay time.Duration) {
	control := http.NewResponseController(w)
	tick := time.NewTicker(delay)
	defer tick.Stop()
	var out bytes.Buffer
	for {
		out.Reset()
		if err := appendFrames(&out, s.source(), time.Now()); err != nil {
			return // the format has no numbers that JSON lacks
		}
		// A writer that has no deadlines can only block; the client's end ends it.
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := w.Write(out.Bytes()); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		}
	}
}

// appendFrames writes one event per object, or a ping where there is none, so
// that both sides notice when the other has gone.
func appendFrames(out *bytes.Buffer, circuits []breaker.Metrics, now time.Time) error {
	if len(circuits) == 0 {
		out.WriteString("ping: \n\n")
		return nil
	}
	for i := range circuits {
		m := &circuits[i]
		for _, object := range []any{commandOf(m, now), threadPoolOf(m, now)} {
			b, err := json.Marshal(object)
			if err != nil {
				return err
			}
			out.WriteString("data: ")
			out.Write(b)
			out.WriteString("\n\n")
		}
	}
	return nil
}

var _ http.Handler = (*Stream)(nil)
