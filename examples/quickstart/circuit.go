// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// circuitState is what the Hystrix stream says of one circuit.
type circuitState struct {
	Type           string `json:"type"`
	Name           string `json:"name"`
	Open           bool   `json:"isCircuitBreakerOpen"`
	ShortCircuited uint64 `json:"rollingCountShortCircuited"`
	Failures       uint64 `json:"rollingCountFailure"`
}

// circuit makes both instances of payments fail, and reads from the admin port of
// orders' sidecar that its circuit to payments opens, and closes when they are well.
func (s *story) circuit(ctx context.Context) (string, error) {
	w, err := watchCircuit(ctx, "http://"+s.mesh.of("orders")[0].admin+"/hystrix.stream", "payments")
	if err != nil {
		return "", err
	}
	defer w.close()
	if err := w.want(ctx, false); err != nil {
		return "", err
	}
	began := time.Now()
	if err := s.failPayments(ctx, "1"); err != nil {
		return "", err
	}
	opened := w.want(ctx, true)
	openAfter := time.Since(began)
	short := uint64(0)
	if opened == nil {
		// While it is open requests are refused at once.
		_ = poll(ctx, 2*time.Second, func() error {
			if short = w.now().ShortCircuited; short == 0 {
				return errors.New("nothing was refused yet")
			}
			return nil
		})
	}
	began = time.Now()
	if err := s.failPayments(context.WithoutCancel(ctx), "0"); err != nil {
		return "", err
	}
	if opened != nil {
		return "", fmt.Errorf("the circuit did not open: %w", opened)
	}
	if err := w.want(ctx, false); err != nil {
		return "", fmt.Errorf("the circuit did not close again: %w", err)
	}
	closeAfter := time.Since(began)
	err = poll(ctx, time.Minute, func() error {
		a, _, err := ask(ctx, s.mesh.client, s.mesh.entry(), nil)
		if err != nil {
			return err
		}
		return a.complete()
	})
	if err != nil {
		return "", err
	}
	if short == 0 {
		return "", errors.New("the circuit was open and refused nothing")
	}
	return fmt.Sprintf("open %v after payments failed, refused %d requests, closed %v after it was well",
		openAfter.Round(time.Millisecond), short, closeAfter.Round(time.Millisecond)), nil
}

func (s *story) failPayments(ctx context.Context, on string) error {
	for _, x := range s.mesh.of("payments") {
		if _, err := s.mesh.do(ctx, http.MethodPost, "http://"+x.app+"/fail?on="+on, nil); err != nil {
			return err
		}
	}
	return nil
}

// circuitWatch reads a Hystrix stream and keeps the last state of one circuit.
type circuitWatch struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	last circuitState
	seen bool
}

// watchCircuit opens the stream. The circuit is the one whose name is service, or
// ends with |service.
func watchCircuit(ctx context.Context, url, service string) (*circuitWatch, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	response, err := http.DefaultClient.Do(r) //nolint:bodyclose // a stream without a time limit; its reader closes it
	if err != nil {
		cancel()
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		cancel()
		return nil, errors.Join(fmt.Errorf("GET %s: %s", url, response.Status), response.Body.Close())
	}
	w := &circuitWatch{name: service, cancel: cancel, done: make(chan struct{})}
	go func() { // ends with close or with the sidecar
		defer close(w.done)
		defer response.Body.Close()
		w.read(response.Body)
	}()
	return w, nil
}

func (w *circuitWatch) read(stream io.Reader) {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		var c circuitState
		if !ok || json.Unmarshal(data, &c) != nil || c.Type != "HystrixCommand" {
			continue
		}
		if c.Name == w.name || strings.HasSuffix(c.Name, "|"+w.name) {
			w.mu.Lock()
			w.last, w.seen = c, true
			w.mu.Unlock()
		}
	}
}

func (w *circuitWatch) now() circuitState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// want waits until the stream says that the circuit is open, or not.
func (w *circuitWatch) want(ctx context.Context, open bool) error {
	return poll(ctx, 6*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case !w.seen:
			return fmt.Errorf("the stream does not name the circuit %q", w.name)
		case w.last.Open != open:
			return fmt.Errorf("open is %t, %d failures in its window", w.last.Open, w.last.Failures)
		}
		return nil
	})
}

func (w *circuitWatch) close() {
	w.cancel()
	<-w.done
}

func hostPort(address string) (string, int, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.Atoi(text)
	return host, port, err
}
