// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	modulePath = "github.com/outrigger-mesh/outrigger"
	warmTime   = time.Second
)

// run meets every proxy with every fault that was asked for.
func run(ctx context.Context, o *options, out, progress io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			_, _ = fmt.Fprintln(progress, "logs and configurations:", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	p, err := findPrograms(ctx, o, dir)
	if err != nil {
		return err
	}
	r := report{Date: time.Now().UTC(), Rate: o.rate, Connections: o.conns, Seconds: o.last.Seconds(), Repeats: o.repeats}
	for i := range faults {
		f := &faults[i]
		if len(o.only) > 0 && !slices.Contains(o.only, f.name) {
			continue
		}
		for _, kind := range o.proxies {
			row, err := meet(ctx, f, kind, o, p, filepath.Join(dir, f.name+"-"+kind))
			if err != nil {
				return fmt.Errorf("%s, %s: %w", f.name, kind, err)
			}
			_, _ = fmt.Fprintf(progress, "%-9s %-8s %s\n", f.name, kind, row)
			r.Rows = append(r.Rows, row)
		}
	}
	if err := r.write(o.out, out); err != nil {
		return err
	}
	return r.verdict()
}

// meet starts a proxy with instances of its own, loads it, and causes the fault.
func meet(ctx context.Context, f *fault, kind string, o *options, p *programs, dir string) (row result, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return row, err
	}
	r, err := newRig(ctx, dir, kind, p, f)
	if err != nil {
		return row, err
	}
	defer r.close()
	l := load{
		address: address(r.hops[0].port), busy: o.conns, idle: f.idle, slow: f.slow,
		every: time.Duration(o.conns) * time.Second / time.Duration(o.rate),
	}
	loaded, end := context.WithCancel(ctx)
	defer end()
	seen := make(chan []sample, 1)
	go func() { seen <- l.run(loaded) }()
	var caused, mended time.Time
	var calls [2]int64 // that came to the instances before the fault, and before it was mended
	err = func() error {
		if err := wait(ctx, warmTime); err != nil {
			return err
		}
		if f.amplifies {
			if calls[0], err = r.calls(ctx); err != nil {
				return err
			}
		}
		caused = time.Now()
		if err := f.cause(ctx, r, o); err != nil {
			return err
		}
		if f.mend != nil {
			if err := wait(ctx, o.last); err != nil {
				return err
			}
			mended = time.Now()
			if f.amplifies {
				if calls[1], err = r.calls(ctx); err != nil {
					return err
				}
			}
			if err := f.mend(ctx, r, o); err != nil {
				return err
			}
		}
		return wait(ctx, o.last)
	}()
	end()
	samples := <-seen
	if err != nil {
		return row, err
	}
	row = count(samples, caused, mended)
	row.Fault, row.What, row.Proxy, row.Bar, row.Hopeless = f.name, f.what, kind, f.bar, f.hopeless
	if f.amplifies {
		row.amplifies(samples, caused, mended, calls[1]-calls[0])
	}
	row.Retries, err = r.retries(ctx, f)
	return row, err
}

// retries are those of all proxies.
func (r *rig) retries(ctx context.Context, f *fault) (n int64, err error) {
	cluster := "service"
	if f.mesh {
		cluster = "outbound|" + meshService
	}
	for _, h := range r.hops {
		one, err := r.stat(ctx, h, "cluster."+cluster+".upstream_rq_retry")
		if err != nil {
			return 0, err
		}
		n += one
	}
	return n, nil
}

// calls are those that came to the instances.
func (r *rig) calls(ctx context.Context) (n int64, err error) {
	for _, m := range r.instances {
		text, err := r.ask(ctx, http.MethodGet, "http://"+address(m.control)+"/", "")
		if err != nil {
			return 0, err
		}
		one, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return 0, err
		}
		n += one
	}
	return n, nil
}

// findPrograms looks for what is installed and builds what is ours.
func findPrograms(ctx context.Context, o *options, dir string) (p *programs, err error) {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", modulePath)
	if err != nil {
		return nil, fmt.Errorf("faults must be run within its module: %w", err)
	}
	p = &programs{sidecar: o.sidecar}
	if p.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if p.envoy, err = output(ctx, filepath.Join(root, "test/peers/envoy"), "path"); err != nil {
		return nil, fmt.Errorf("run test/peers/envoy install: %w", err)
	}
	if p.toxiproxy, err = output(ctx, filepath.Join(root, "test/peers/toxiproxy"), "path"); err != nil {
		return nil, fmt.Errorf("run test/peers/toxiproxy install: %w", err)
	}
	if p.controlplane, err = build(ctx, dir, "controlplane"); err != nil {
		return nil, err
	}
	if p.sidecar == "" {
		p.sidecar, err = build(ctx, dir, "sidecar")
	}
	return p, err
}

func build(ctx context.Context, dir, name string) (file string, err error) {
	file = filepath.Join(dir, name)
	if _, err := output(ctx, "go", "build", "-o", file, modulePath+"/cmd/"+name); err != nil {
		return "", fmt.Errorf("build cmd/%s: %w", name, err)
	}
	return file, nil
}

// output runs a program and returns what it writes; the error has what it complained of.
func output(ctx context.Context, argv ...string) (string, error) {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var complaint strings.Builder
	c.Stderr = &complaint
	text, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, complaint.String())
	}
	return strings.TrimSpace(string(text)), nil
}
