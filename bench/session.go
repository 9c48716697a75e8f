// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
)

const (
	readyLimit = 30 * time.Second
	readyPoll  = time.Millisecond
	// fileReserve is what a process needs beside its clients' connections.
	fileReserve = 1000
)

// session is what all parts of a run share: programs, CPUs, the backend.
type session struct {
	o         Options
	dir       string
	tools     *tools
	spawn     *spawner
	proxyCPU  int
	loadCPU   int
	openFiles uint64
	backends  []int
	collector int
	backend   *process
	tls       credentials
	client    *http.Client
	say       func(format string, args ...any)
	result    *Result
}

// instance is one running proxy.
type instance struct {
	proxy
	*process
	url   string
	admin string         // the URL of its admin port, where it is profiled
	ports map[string]int // by the frontend's name
}

// raiseFiles lifts the limit of open files, which children inherit, to what the
// system allows.
func raiseFiles() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	l.Cur = l.Max
	return l.Cur, unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

// startBackend runs the servers behind the proxies.
func (s *session) startBackend(ctx context.Context) error {
	ports, err := freeport.Find(3)
	if err != nil {
		return err
	}
	s.backends, s.collector = ports[:2], ports[2]
	www := filepath.Join(s.dir, "www")
	if err := os.Mkdir(www, 0o755); err != nil {
		return err
	}
	// nginx's worker gives up root, and must read the file.
	if err := os.Chmod(s.dir, 0o711); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(www, "16k"), largeBody(), 0o644); err != nil {
		return err
	}
	if s.tls, err = makeCredentials(s.dir); err != nil {
		return err
	}
	config, err := render("backend.conf.tmpl", s.settings(), filepath.Join(s.dir, "backend.conf"))
	if err != nil {
		return err
	}
	if s.backend, err = s.spawn.start("backend", s.loadCPU, nil, s.tools.command("nginx", config)...); err != nil {
		return err
	}
	for _, port := range ports {
		if err := s.awaitReady(ctx, s.backend, fmt.Sprintf("http://127.0.0.1:%d/", port)); err != nil {
			return err
		}
	}
	return nil
}

// idleConnections is what was asked for, or what the limit of open files leaves.
func (s *session) idleConnections() int {
	return min(s.o.IdleConnections, int(s.openFiles)-fileReserve)
}

func (s *session) settings() settings {
	return settings{
		Dir: s.dir, Backends: s.backends, Collector: s.collector, AccessLog: os.DevNull, TLS: s.tls,
		Upstreams:      []upstream{{Name: "backend", Ports: s.backends}},
		MaxConnections: max(s.idleConnections(), maxLoadConnections) + fileReserve, OpenFiles: s.openFiles,
	}
}

// plainAndTLS are two ports to the backend.
func plainAndTLS() []frontend {
	return []frontend{
		{Name: "main", Upstream: "backend"},
		{Name: "tls", Upstream: "backend", TLS: true, HTTP2: true},
	}
}

// startProxy runs a proxy with one plain port and waits until it forwards.
func (s *session) startProxy(ctx context.Context, p proxy, clusters []namedEndpoints) (*instance, time.Duration, error) {
	set := s.settings()
	set.Listeners, set.Clusters = plainAndTLS()[:1], clusters
	return s.startWithSettings(ctx, p, set)
}

// startWithSettings gives each of the set's listeners a free port; the first is
// plain HTTP, by which readiness is seen.
func (s *session) startWithSettings(ctx context.Context, p proxy, set settings) (*instance, time.Duration, error) {
	ports, err := freeport.Find(len(set.Listeners) + 1) // the last is the admin port, where there is one
	if err != nil {
		return nil, 0, err
	}
	in := &instance{proxy: p, ports: map[string]int{}, url: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
	for i := range set.Listeners {
		set.Listeners[i].Port = ports[i]
		in.ports[set.Listeners[i].Name] = ports[i]
	}
	set.Name, set.Features, set.Resilience, set.Sidecar = p.Name, p.Features, p.Resilience, p.Kind == "sidecar"
	config, err := render(p.template, set, filepath.Join(s.dir, p.Name+filepath.Ext(strings.TrimSuffix(p.template, ".tmpl"))))
	if err != nil {
		return nil, 0, err
	}
	command := s.tools.command(p.Kind, config)
	if p.profiled {
		admin := fmt.Sprintf("127.0.0.1:%d", ports[len(set.Listeners)])
		command = append(command, "--admin", admin, "--admin-profiling")
		in.admin = "http://" + admin
	}
	began := time.Now()
	if in.process, err = s.spawn.start(p.Name, s.proxyCPU, nil, command...); err != nil {
		return nil, 0, err
	}
	if err := s.awaitReady(ctx, in.process, in.url+"/"); err != nil {
		return nil, 0, err
	}
	return in, time.Since(began), nil
}

// awaitReady asks until the answer is a 2xx.
func (s *session) awaitReady(ctx context.Context, p *process, url string) error {
	limit := time.NewTimer(readyLimit)
	defer limit.Stop()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	var last error
	for {
		if _, last = s.get(ctx, url); last == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-p.done:
			return p.ended()
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return fmt.Errorf("%s: not ready within %s: %w; the end of its log:\n%s", p.name, readyLimit, last, p.logTail())
		}
	}
}

// get fetches a URL over a connection of its own; anything but a 2xx is an error.
func (s *session) get(ctx context.Context, url string) ([]byte, error) {
	return s.fetch(ctx, http.MethodGet, url)
}

func (s *session) fetch(ctx context.Context, method, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	a, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s: %s", url, a.Status, tail(string(body), 1))
	}
	return body, err
}

// check sees that a proxy passes bodies whole, and that its features are at work,
// or not, as its name says.
func (s *session) check(ctx context.Context, in *instance) error {
	for _, b := range bodies {
		got, err := s.get(ctx, in.url+b.path)
		if err != nil {
			return fmt.Errorf("%s: %w", in.Name, err)
		}
		if len(got) != b.size {
			return fmt.Errorf("%s: %s has %d bytes, want %d", in.Name, b.path, len(got), b.size)
		}
	}
	text, err := s.get(ctx, in.url+"/probe")
	if err != nil {
		return fmt.Errorf("%s: %w", in.Name, err)
	}
	var seen struct{ RequestID, Traceparent, B3 string }
	if err := json.Unmarshal(text, &seen); err != nil {
		return fmt.Errorf("%s: /probe: %w", in.Name, err)
	}
	for name, value := range map[string]string{"x-request-id": seen.RequestID, "traceparent": seen.Traceparent, "b3": seen.B3} {
		if (value != "") != in.Features {
			return fmt.Errorf("%s: the backend saw %s %q: features are not as configured", in.Name, name, value)
		}
	}
	return nil
}

func (s *session) close() error {
	s.client.CloseIdleConnections()
	s.spawn.close()
	if s.o.KeepLogs {
		s.say("logs and configurations are in %s", s.dir)
		return nil
	}
	return os.RemoveAll(s.dir)
}

// fault notes what makes the run invalid.
func (s *session) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.say("FAULT: %s", text)
	s.result.Faults = append(s.result.Faults, text)
}

var errInvalid = errors.New("the run is invalid: see its faults")
