// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// leastFor is what the whole account needs on a slow machine.
const leastFor = 15 * time.Second

func main() {
	length := flag.Duration("for", 0, "end after this long and exit 0 only if all was seen; 0 runs until Ctrl-C")
	rate := flag.Int("rate", 100, "requests per second of the load")
	keep := flag.Bool("keep", false, "keep the folder with data and logs")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: go run ./examples/quickstart [flags]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 || *rate < 10 || *rate > 2000 || *length < 0 || *length > 0 && *length < leastFor {
		fmt.Fprintf(os.Stderr, "quickstart: want no arguments, -rate from 10 to 2000, and -for 0 or at least %v\n", leastFor)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(endWithParent(ctx), newScreen(os.Stdout), *length, *rate, *keep))
}

// run builds, starts, tells and ends; the result is the exit code.
func run(ctx context.Context, out *screen, length time.Duration, rate int, keep bool) (code int) {
	fail := func(err error) int {
		if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, errEnded)) {
			return 130
		}
		out.failed(err)
		return 1
	}
	dir, err := os.MkdirTemp("", "outrigger-quickstart-")
	if err != nil {
		return fail(err)
	}
	defer func() {
		if keep {
			out.note("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			code = fail(err)
		}
	}()
	out.note("building sidecar, controlplane and the services (some minutes the first time)")
	if err := build(ctx, dir); err != nil {
		return fail(err)
	}
	m := newMesh(dir)
	defer m.stopAll()
	if err := m.start(ctx); err != nil {
		return fail(err)
	}
	out.addresses(m)
	l := startLoad(m.entry(), rate)
	s := newStory(m, l, out)
	live := ctx
	if length > 0 {
		var cancel context.CancelFunc
		live, cancel = context.WithTimeout(ctx, length)
		defer cancel()
	}
	s.tell(live)
	l.stop()
	if ctx.Err() != nil {
		out.note("ending")
	}
	m.stopAll()
	s.lookIntoLakeAtEnd()
	return out.verdict(s, length > 0, ctx.Err() != nil)
}

// endWithParent ends the context when the process that started this one is gone:
// `go run` does not hand SIGTERM on.
func endWithParent(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	go func() { // ends with the process
		for os.Getppid() == parent {
			time.Sleep(200 * time.Millisecond)
		}
		cancel()
	}()
	return ctx
}
