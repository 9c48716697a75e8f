// SPDX-License-Identifier: Apache-2.0

// Command service is one of the quickstart's three small HTTP services. It knows
// nothing of the mesh: it listens on a port, calls one other service by its name
// through its sidecar, and hands the headers on that join the spans of a trace.
//
//	GET  /            its name and version, and what the service it calls answered
//	POST /fail?on=1   answer 500 from now on; on=0 ends that
//	GET  /healthz     200
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// handedOn are the request headers that an application copies from the request it
// serves to the requests it makes meanwhile. This is all that tracing asks of it:
// the sidecars make the spans, but only the application knows which call belongs
// to which request.
var handedOn = []string{
	"Traceparent", "Tracestate", "Baggage",
	"B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
	"X-Request-Id",
}

// maxAnswer bounds what is read of another service's answer.
const maxAnswer = 64 << 10

// service is one instance.
type service struct {
	name, version, instance string
	calls                   string // service to call, empty for none
	sidecar                 string // URL of the sidecar's outbound listener
	work                    time.Duration
	client                  *http.Client
	failing                 atomic.Bool
}

// answer is the body of every response.
type answer struct {
	Service  string          `json:"service"`
	Version  string          `json:"version"`
	Instance string          `json:"instance"`
	Calls    json.RawMessage `json:"calls,omitempty"` // what the service behind answered
	// Error says why Calls is missing: a service that can do without the one behind
	// it answers all the same.
	Error string `json:"error,omitempty"`
}

func main() {
	var s service
	listen := flag.String("listen", "127.0.0.1:8080", "address to serve on")
	flag.StringVar(&s.name, "name", "service", "name of the service")
	flag.StringVar(&s.version, "version", "v1", "version of the service")
	flag.StringVar(&s.instance, "instance", "1", "name of this instance")
	flag.StringVar(&s.calls, "calls", "", "service to call for each request")
	flag.StringVar(&s.sidecar, "sidecar", "http://127.0.0.1:15001", "outbound listener of the sidecar")
	flag.DurationVar(&s.work, "work", 0, "time that each request takes here")
	flag.Parse()
	if err := s.run(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "service:", err)
		os.Exit(1)
	}
}

// run serves until SIGTERM or SIGINT.
func (s *service) run(listen string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", s.serve)
	mux.HandleFunc("POST /fail", s.fail)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }() // ends with Shutdown
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(end); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (s *service) serve(w http.ResponseWriter, r *http.Request) {
	if s.failing.Load() {
		http.Error(w, "told to fail", http.StatusInternalServerError)
		return
	}
	time.Sleep(s.work)
	a := answer{Service: s.name, Version: s.version, Instance: s.instance}
	if s.calls != "" {
		var err error
		if a.Calls, err = s.call(r); err != nil {
			a.Error = err.Error()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a) // the caller has gone if it fails
}

// call asks the service behind through the sidecar, which finds it by the Host
// header.
func (s *service) call(in *http.Request) (json.RawMessage, error) {
	out, err := http.NewRequestWithContext(in.Context(), http.MethodGet, s.sidecar+"/", nil)
	if err != nil {
		return nil, err
	}
	out.Host = s.calls
	for _, name := range handedOn {
		if v := in.Header.Values(name); len(v) > 0 {
			out.Header[name] = v
		}
	}
	response, err := s.client.Do(out)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", s.calls, response.Status)
	}
	if !json.Valid(body) {
		return nil, fmt.Errorf("%s: the answer is not JSON", s.calls)
	}
	return body, nil
}

func (s *service) fail(w http.ResponseWriter, r *http.Request) {
	switch on := r.URL.Query().Get("on"); on {
	case "1", "0":
		s.failing.Store(on == "1")
		fmt.Fprintln(w, "failing:", on == "1")
	default:
		http.Error(w, "want on=1 or on=0", http.StatusBadRequest)
	}
}
