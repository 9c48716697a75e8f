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
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
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
	calls                   caller // its host is empty for none
	work                    time.Duration
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
	runtime.GOMAXPROCS(1) // it waits most of the time; more threads would only look for work
	var s service
	listen := flag.String("listen", "127.0.0.1:8080", "address to serve on")
	flag.StringVar(&s.name, "name", "service", "name of the service")
	flag.StringVar(&s.version, "version", "v1", "version of the service")
	flag.StringVar(&s.instance, "instance", "1", "name of this instance")
	flag.StringVar(&s.calls.host, "calls", "", "service to call for each request")
	flag.StringVar(&s.calls.address, "sidecar", "127.0.0.1:15001", "outbound listener of the sidecar")
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
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	srv := &server{handle: s.handle}
	failed := make(chan error, 1)
	go func() { failed <- srv.serve(l) }() // ends with the listener
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err = l.Close()
	srv.stop(end)
	return err
}

func (s *service) handle(r *http.Request) (status int, contentType string, body []byte) {
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/healthz":
		return text(http.StatusOK, "ok")
	case r.Method == http.MethodPost && r.URL.Path == "/fail":
		return s.fail(r)
	case r.Method == http.MethodGet:
		return s.answer(r)
	}
	return text(http.StatusNotFound, "no such thing here")
}

func text(status int, line string) (int, string, []byte) {
	return status, "text/plain; charset=utf-8", []byte(line + "\n")
}

func (s *service) answer(r *http.Request) (status int, contentType string, body []byte) {
	if s.failing.Load() {
		return text(http.StatusInternalServerError, "told to fail")
	}
	time.Sleep(s.work)
	a := answer{Service: s.name, Version: s.version, Instance: s.instance}
	if s.calls.host != "" {
		var err error
		if a.Calls, err = s.call(r); err != nil {
			a.Error = err.Error()
		}
	}
	body, err := json.Marshal(a)
	if err != nil {
		return text(http.StatusInternalServerError, err.Error())
	}
	return http.StatusOK, "application/json", append(body, '\n')
}

// call asks the service behind through the sidecar, which finds it by the Host
// header.
func (s *service) call(in *http.Request) (json.RawMessage, error) {
	status, body, err := s.calls.get(in.Header, handedOn)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s: %d %s", s.calls.host, status, http.StatusText(status))
	}
	if !json.Valid(body) {
		return nil, fmt.Errorf("%s: the answer is not JSON", s.calls.host)
	}
	return body, nil
}

func (s *service) fail(r *http.Request) (status int, contentType string, body []byte) {
	on := r.URL.Query().Get("on")
	if on != "1" && on != "0" {
		return text(http.StatusBadRequest, "want on=1 or on=0")
	}
	s.failing.Store(on == "1")
	return text(http.StatusOK, fmt.Sprint("failing: ", on == "1"))
}
