// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// run measures what the options ask for and writes the results.
func run(ctx context.Context, o Options, out io.Writer) (err error) {
	began := time.Now()
	s, err := open(ctx, o, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	s.result.Started = began.UTC().Truncate(time.Second)
	parts := []struct {
		wanted bool
		run    func(context.Context) error
	}{{o.Load, s.runLoad}, {o.Protocol, s.runProtocols}, {o.Idle, s.runIdle}, {o.Clusters, s.runClusters}}
	for _, p := range parts {
		if !p.wanted {
			continue
		}
		if err := p.run(ctx); err != nil {
			return err
		}
	}
	s.result.Took = time.Since(began).Truncate(time.Second)
	if !o.Quick {
		s.result.Verdicts = judge(s.result)
	}
	path, err := s.result.write(o.Out)
	if err != nil {
		return err
	}
	fmt.Fprint(out, "\n", s.result.summary(), "\nwritten: ", path, "\n")
	if len(s.result.Faults) > 0 {
		return errInvalid
	}
	return nil
}

// open prepares a session and starts the backend.
func open(ctx context.Context, o Options, out io.Writer) (_ *session, err error) {
	s := &session{o: o, result: &Result{Options: o}}
	began := time.Now()
	s.say = func(format string, args ...any) {
		fmt.Fprintf(out, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	if s.proxyCPU, s.loadCPU, err = twoCPUs(); err != nil {
		return nil, err
	}
	if s.openFiles, err = raiseFiles(); err != nil {
		return nil, fmt.Errorf("limit of open files: %w", err)
	}
	if s.dir, err = os.MkdirTemp("", "outrigger-bench-"); err != nil {
		return nil, err
	}
	s.spawn = newSpawner(s.dir)
	s.client = &http.Client{
		Timeout:   10 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.say("building the sidecar, looking for nginx, haproxy, wrk, h2load and envoy")
	if s.tools, err = findTools(ctx, o, s.dir); err != nil {
		return nil, err
	}
	s.result.Versions = s.tools.versions(ctx)
	s.result.Commit = commit(ctx)
	s.result.SidecarBuild = sidecarBuild(s.tools.Sidecar)
	s.result.Machine = machine()
	if err := pinSelf(s.loadCPU); err != nil { // only now: the build uses every core
		return nil, err
	}
	return s, s.startBackend(ctx)
}

// commit names the tree that was measured; a changed one has a plus.
func commit(ctx context.Context) string {
	id, err := output(ctx, "git", "rev-parse", "--short", "HEAD")
	if err != nil {
		return "unknown"
	}
	if changed, err := output(ctx, "git", "status", "--porcelain", "--", ":/cmd", ":/pkg", ":/go.mod"); err != nil || changed != "" {
		id += "+"
	}
	return id
}

func machine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown", Kernel: "unknown"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if v, ok := procValue("/proc/cpuinfo", "model name"); ok {
		m.CPU = v
	}
	if v, ok := procValue("/proc/meminfo", "MemTotal"); ok {
		kib, _ := strconv.ParseInt(strings.TrimSuffix(v, " kB"), 10, 64)
		m.MemoryMiB = kib >> 10
	}
	return m
}

// procValue is the value of the first line "KEY: value".
func procValue(file, key string) (string, bool) {
	f, err := os.Open(file)
	if err != nil {
		return "", false
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}
