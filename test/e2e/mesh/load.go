// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// answerLimit is how long a request may take before it counts as failed.
const answerLimit = 20 * time.Second

// LoadConfig says what is sent. Zero fields have a default.
type LoadConfig struct {
	Address string // of the sidecar
	Host    string
	Method  string // GET
	Path    string // /
	Body    string
	Conns   int // 16 keep-alive connections, each with one request at a time
	Rate    int // requests a second over all connections; 500
	// Check says what is wrong with an answer of 200; nil: nothing can be.
	Check func(Answer) error
}

// Failure is a request that got no complete answer or none of 200.
type Failure struct {
	At     time.Time
	Status int // 0 for none
	Body   string
	Err    error
}

func (f Failure) String() string {
	if f.Err != nil {
		return fmt.Sprintf("%s %d %v", f.At.Format("05.000"), f.Status, f.Err)
	}
	return fmt.Sprintf("%s %d %s", f.At.Format("05.000"), f.Status, strings.TrimSpace(f.Body))
}

// Tally counts the requests of a stretch of a load.
type Tally struct {
	Sent, Failed int
	Failures     []Failure // the first few
	Instances    map[string]int
	// Slowest is the longest time to a complete answer.
	Slowest time.Duration
}

// manyFailures is how many are kept for the report.
const manyFailures = 64

// Load is a closed-loop client of steady rate over keep-alive connections. It
// never repeats a request by itself: what fails is counted. Unlike net/http's
// client it notices a connection that was closed without "Connection: close".
type Load struct {
	t    testing.TB
	c    LoadConfig
	stop chan struct{}
	once sync.Once
	done sync.WaitGroup

	mu    sync.Mutex
	tally Tally
}

// StartLoad sends until Stop or the end of the test.
func StartLoad(t testing.TB, c LoadConfig) *Load {
	t.Helper()
	c.Method, c.Path = cmp.Or(c.Method, http.MethodGet), cmp.Or(c.Path, "/")
	c.Conns, c.Rate = cmp.Or(c.Conns, 16), cmp.Or(c.Rate, 500)
	l := &Load{t: t, c: c, stop: make(chan struct{}), tally: Tally{Instances: map[string]int{}}}
	period := time.Second * time.Duration(c.Conns) / time.Duration(c.Rate)
	for i := range c.Conns {
		// Spread over the period, so that requests do not come in bursts.
		l.done.Go(func() { l.run(period, period*time.Duration(i)/time.Duration(c.Conns)) })
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

func (l *Load) run(period, offset time.Duration) {
	select {
	case <-time.After(offset):
	case <-l.stop:
		return
	}
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	var x caller
	defer x.close()
	for {
		began := time.Now()
		a, err := x.call(l.c)
		if err == nil && a.Status == http.StatusOK && l.c.Check != nil {
			err = l.c.Check(a)
		}
		l.note(began, a, err)
		select {
		case <-ticker.C:
		case <-l.stop:
			return
		}
	}
}

func (l *Load) note(began time.Time, a Answer, err error) {
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.tally
	t.Sent++
	t.Slowest = max(t.Slowest, took)
	if err == nil && a.Status == http.StatusOK {
		t.Instances[a.Header.Get(InstanceHeader)]++
		return
	}
	t.Failed++
	if len(t.Failures) < manyFailures {
		t.Failures = append(t.Failures, Failure{began, a.Status, a.Body, err})
	}
}

// Take returns what was counted since the last Take.
func (l *Load) Take() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.tally
	l.tally = Tally{Instances: map[string]int{}}
	return out
}

// Stop ends the load after the requests under way and returns what was counted
// since the last Take.
func (l *Load) Stop() Tally {
	l.once.Do(func() { close(l.stop) })
	l.done.Wait()
	return l.Take()
}

// AwaitSent waits until so many more requests were answered.
func (l *Load) AwaitSent(n int) {
	l.t.Helper()
	l.mu.Lock()
	goal := l.tally.Sent + n
	l.mu.Unlock()
	Await(l.t, time.Minute, fmt.Sprintf("%d more requests", n), func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.tally.Sent < goal {
			return fmt.Errorf("%d to go", goal-l.tally.Sent)
		}
		return nil
	})
}

// Flawless fails the test if a request of the stretch did.
func (t Tally) Flawless(tb testing.TB, what string) {
	tb.Helper()
	if t.Failed > 0 || t.Sent == 0 {
		tb.Errorf("%s: %d of %d requests failed: %v", what, t.Failed, t.Sent, t.Failures)
	}
}

// caller is one keep-alive connection.
type caller struct {
	conn net.Conn
	r    *bufio.Reader
}

func (x *caller) close() {
	if x.conn != nil {
		_ = x.conn.Close() // nothing is under way on it
		x.conn = nil
	}
}

// call sends one request and reads the whole answer. An error closes the
// connection; the next call opens another.
func (x *caller) call(c LoadConfig) (Answer, error) {
	if x.conn == nil {
		conn, err := net.DialTimeout("tcp", c.Address, answerLimit)
		if err != nil {
			return Answer{}, err
		}
		x.conn, x.r = conn, bufio.NewReaderSize(conn, 2048)
	}
	a, keep, err := exchange(x.conn, x.r, c)
	if err != nil || !keep {
		x.close()
	}
	return a, err
}

func exchange(conn net.Conn, r *bufio.Reader, c LoadConfig) (a Answer, keep bool, err error) {
	if err := conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return a, false, err
	}
	head := c.Method + " " + c.Path + " HTTP/1.1\r\nHost: " + c.Host + "\r\n"
	if c.Body != "" || c.Method != http.MethodGet {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(c.Body))
	}
	if _, err := io.WriteString(conn, head+"\r\n"+c.Body); err != nil {
		return a, false, fmt.Errorf("write: %w", err)
	}
	response, err := http.ReadResponse(r, &http.Request{Method: c.Method})
	if err != nil {
		return a, false, fmt.Errorf("read head: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end below
	a.Status, a.Header = response.StatusCode, response.Header
	body, err := io.ReadAll(response.Body)
	a.Body = string(body)
	if err != nil {
		return a, false, fmt.Errorf("read body: %w", err)
	}
	return a, !response.Close, nil
}

// Call sends one GET on a connection of its own.
func Call(address, host, path string) (Answer, error) {
	var x caller
	defer x.close()
	return x.call(LoadConfig{Address: address, Host: host, Method: http.MethodGet, Path: path})
}

// Post sends one POST on a connection of its own and returns the status, 0 if
// there was none.
func Post(address, host, path, body string) int {
	var x caller
	defer x.close()
	a, err := x.call(LoadConfig{Address: address, Host: host, Method: http.MethodPost, Path: path, Body: body})
	if err != nil {
		return 0
	}
	return a.Status
}
