// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	sidecarPackage = modulePath + "/cmd/sidecar"
	// sidecarProfile guides builds of the sidecar. It is not called default.pgo, by
	// which every first build, also that of a test, would take minutes longer.
	sidecarProfile = "cmd/sidecar/sidecar.pgo"

	// profileTime is that of one load, unless --duration says another. The admin port
	// ends a profile after a minute.
	profileTime    = 4 * time.Second
	maxProfileTime = 50 * time.Second
)

// runProfile puts every load on one sidecar with all features and writes the CPU
// profile of them all, by which builds of the sidecar are guided. Each load has the
// same time.
func runProfile(ctx context.Context, o Options, progress io.Writer) (err error) {
	if o.Profile, err = filepath.Abs(o.Profile); err != nil {
		return fmt.Errorf("--profile: %w", err)
	}
	if o.Sidecar != "" {
		info, err := buildinfo.ReadFile(o.Sidecar)
		if err == nil {
			err = profilable(info)
		}
		if err != nil {
			return fmt.Errorf("--sidecar: %s: %w", o.Sidecar, err)
		}
	}
	s, err := open(ctx, o, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	all, err := s.profileLoads(ctx)
	if err != nil {
		return err
	}
	text, err := all.encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(o.Profile, text, 0o644); err != nil {
		return fmt.Errorf("--profile: %w", err)
	}
	s.say("written: %s, %d stacks, %d bytes", o.Profile, len(all.merged.Sample), len(text))
	return nil
}

// profilable refuses what no profile of this tree's sidecar can come from.
func profilable(info *buildinfo.BuildInfo) error {
	if info.Path != sidecarPackage {
		return fmt.Errorf("is built from %q, and a profile is of %s", info.Path, sidecarPackage)
	}
	if by := guide(info); by != "" {
		return fmt.Errorf("is itself guided by %s: give one that was built with -pgo=off, or none", by)
	}
	return nil
}

// guide is the base name of the profile that a program's build was guided by, if any.
func guide(info *buildinfo.BuildInfo) string {
	for _, x := range info.Settings {
		if x.Key == "-pgo" && x.Value != "" {
			return filepath.Base(x.Value)
		}
	}
	return ""
}

// sidecarBuild says which build of the sidecar a program is.
func sidecarBuild(program string) string {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "of an unknown build"
	}
	if by := guide(info); by != "" {
		return "guided by the profile " + by
	}
	return "built without a profile"
}

func (s *session) profileLoads(ctx context.Context) (*stacks, error) {
	servers, err := s.startServers()
	if err != nil {
		return nil, err
	}
	defer servers.close()
	on := proxies[len(proxies)-1]
	on.profiled = true
	c, err := s.startPair(ctx, on, servers)
	if err != nil {
		return nil, err
	}
	defer s.spawn.end(c.process, c.peer.process)
	if err := s.check(ctx, c.instance); err != nil {
		return nil, err
	}
	if err := s.warm(ctx, []*instance{c.instance}); err != nil {
		return nil, err
	}
	if err := s.warmProtocols(ctx, []contestant{c}); err != nil {
		return nil, err
	}
	all := new(stacks)
	for _, b := range bodies {
		for _, n := range s.o.Connections {
			if !s.wants(b) {
				continue
			}
			err := s.profileLoad(ctx, all, fmt.Sprintf("%s-%d", b.name, n), []*instance{c.instance}, func() (outcome, error) {
				r, err := s.wrk(ctx, c.instance, b, n, s.o.Duration)
				return r.outcome(b), err
			})
			if err != nil {
				return nil, err
			}
		}
	}
	for i := range scenarios {
		x := &scenarios[i]
		if !s.runs(x, c) {
			continue
		}
		of := []*instance{c.instance}
		if x.peer {
			of = append(of, c.peer)
		}
		err := s.profileLoad(ctx, all, x.Name, of, func() (outcome, error) { return x.load(ctx, s.target(c, x, s.o.Duration)) })
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// profileLoad adds the profiles of the instances during one load.
func (s *session) profileLoad(ctx context.Context, all *stacks, name string, of []*instance, load func() (outcome, error)) error {
	for _, in := range of {
		if _, err := s.post(ctx, in.admin+"/cpuprofiler?enable=y"); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	out, err := load()
	switch {
	case err != nil:
	case out.Failed > 0:
		err = fmt.Errorf("%d failed, %d done: %w", out.Failed, out.Done, out.Failure)
	case out.Done == 0:
		err = errors.New("nothing was done")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, in := range of {
		text, err := s.post(ctx, in.admin+"/cpuprofiler?enable=n")
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n, err := all.add(text)
		if err == nil && n == 0 {
			err = errors.New("CPU profile: has no samples")
		}
		if err != nil {
			return fmt.Errorf("%s, %s: %w", name, in.Name, err)
		}
		s.say("%-17s %-15s %4d samples, %d done", name, in.Name, n, out.Done)
	}
	return nil
}

func (s *session) post(ctx context.Context, url string) ([]byte, error) {
	return s.fetch(ctx, http.MethodPost, url)
}
