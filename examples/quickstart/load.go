// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// answer is what the services say; see service/main.go.
type answer struct {
	Service  string  `json:"service"`
	Version  string  `json:"version"`
	Instance string  `json:"instance"`
	Calls    *answer `json:"calls"`
	Error    string  `json:"error"`
}

// last is the answer of the service at the end of the chain.
func (a *answer) last() *answer {
	for a.Calls != nil {
		a = a.Calls
	}
	return a
}

// complete says whether all three services answered.
func (a *answer) complete() error {
	for ; ; a = a.Calls {
		switch {
		case a.Error != "":
			return fmt.Errorf("%s answered without the service behind it: %s", a.Instance, a.Error)
		case a.Calls == nil && a.Service != "payments":
			return fmt.Errorf("the answer ends at %q", a.Service)
		case a.Calls == nil:
			return nil
		}
	}
}

// ask sends one request to the entry of the mesh.
func ask(ctx context.Context, c *http.Client, url string, header http.Header) (*answer, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	for k, v := range header {
		r.Header[k] = v
	}
	response, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return nil, nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, nil, err
	}
	return &a, response.Header, nil
}

// senders is how many requests may be under way at once.
const senders = 16

// tally counts the answers of a stretch of the load.
type tally struct {
	sent, lost, degraded int
	instances            map[string]int // of payments
	why                  string         // of the first that was lost or degraded
	slowest              time.Duration
}

// load sends requests at a steady rate until it is stopped.
type load struct {
	url    string
	client *http.Client
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex
	whole tally
	part  tally // since begin
}

func startLoad(url string, rate int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		url: url, cancel: cancel,
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: senders}},
		whole:  tally{instances: map[string]int{}}, part: tally{instances: map[string]int{}},
	}
	due := make(chan struct{}, senders)
	l.done.Go(func() { l.pace(ctx, due, time.Second/time.Duration(rate)) })
	for range senders {
		l.done.Go(func() {
			for range due {
				l.send()
			}
		})
	}
	return l
}

// pace says when a request is due. When all senders are busy it waits: the load
// is steady, not a flood.
func (l *load) pace(ctx context.Context, due chan<- struct{}, period time.Duration) {
	defer close(due)
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		select {
		case <-ctx.Done():
			return
		case due <- struct{}{}:
		}
	}
}

func (l *load) send() {
	began := time.Now()
	// Not the load's own context: at the end, what was sent is answered.
	a, _, err := ask(context.Background(), l.client, l.url, nil)
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range []*tally{&l.whole, &l.part} {
		t.add(a, err, took)
	}
}

func (t *tally) add(a *answer, err error, took time.Duration) {
	t.sent++
	t.slowest = max(t.slowest, took)
	if err == nil {
		if err = a.complete(); err == nil {
			t.instances[a.last().Instance]++
			return
		}
		t.degraded++
	} else {
		t.lost++
	}
	if t.why == "" {
		t.why = err.Error()
	}
}

// begin starts a new stretch.
func (l *load) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = tally{instances: map[string]int{}}
}

// sofar is the tally of the stretch.
func (l *load) sofar() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.part.clone()
}

// total is the tally of the whole load.
func (l *load) total() tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.whole.clone()
}

func (t tally) clone() tally {
	m := make(map[string]int, len(t.instances))
	for k, v := range t.instances {
		m[k] = v
	}
	t.instances = m
	return t
}

// flawless says whether every request of the stretch was answered in full.
func (t tally) flawless() error {
	if t.lost+t.degraded > 0 {
		return fmt.Errorf("%d of %d requests failed, the first with: %s", t.lost+t.degraded, t.sent, t.why)
	}
	if t.sent == 0 {
		return errors.New("no request was sent")
	}
	return nil
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
	l.client.CloseIdleConnections()
}
