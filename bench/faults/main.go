// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// options says what a run does.
type options struct {
	only    []string // names of faults; empty: all
	proxies []string
	rate    int           // requests a second
	conns   int           // that send all the time
	last    time.Duration // of a fault
	repeats int           // of reloads and upgrades
	sidecar string        // a program to use instead of building one
	out     string        // folder for the report; empty: none
	keep    bool
	list    bool
}

const long = `faults breaks instances, connections and the proxy itself while clients that never
retry call through it, and prints what was lost: through the sidecar and through Envoy,
with the same settings and under the same faults.

It needs Linux, Envoy, which test/peers/envoy installs by itself, and toxiproxy
(test/peers/toxiproxy). Exit status 1: something could not be run, or a fault whose bar
is "no request lost" lost one through the sidecar.`

func newCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:           "faults",
		Short:         "Count the requests that faults cost, beside Envoy",
		Long:          long,
		Example:       "  go run ./bench/faults\n  go run ./bench/faults --list\n  go run ./bench/faults --only killed,hung --proxies sidecar",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.only, "only", nil, "faults to run, by the names that --list shows (default: all)")
	f.StringSliceVar(&o.proxies, "proxies", proxyKinds(), "proxies to run them on")
	f.IntVar(&o.rate, "rate", 400, "requests a second")
	f.IntVar(&o.conns, "connections", 40, "keep-alive connections that send them")
	f.DurationVar(&o.last, "duration", 4*time.Second, "how long a fault lasts")
	f.IntVar(&o.repeats, "repeats", 22, "reloads and upgrades in a row")
	f.StringVar(&o.sidecar, "sidecar", "", "sidecar program to run (default: one built from this tree)")
	f.StringVar(&o.out, "out", "bench/results", "folder for the report; empty writes none")
	f.BoolVar(&o.keep, "keep-logs", false, "keep the folder with configurations and logs, and print its name")
	f.BoolVar(&o.list, "list", false, "list the faults and end")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.list {
			for i := range faults {
				_, _ = fmt.Fprintf(c.OutOrStdout(), "%-12s %s\n", faults[i].name, faults[i].what)
			}
			return nil
		}
		if err := o.validate(); err != nil {
			return err
		}
		return run(c.Context(), &o, c.OutOrStdout(), c.ErrOrStderr())
	}
	c.AddCommand(newInstanceCommand())
	c.CompletionOptions.HiddenDefaultCmd = true
	return c
}

func (o *options) validate() error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	names := faultNames()
	for _, n := range o.only {
		bad(!slices.Contains(names, n), "--only: %q is none of %s", n, strings.Join(names, ", "))
	}
	bad(len(o.proxies) == 0, "--proxies: names none")
	for _, p := range o.proxies {
		bad(!slices.Contains(proxyKinds(), p), "--proxies: %q is none of %s", p, strings.Join(proxyKinds(), ", "))
	}
	bad(o.conns < 1 || o.conns > 2000, "--connections: must be 1 to 2000, is %d", o.conns)
	bad(o.rate < 1 || o.rate > 20_000, "--rate: must be 1 to 20000, is %d", o.rate)
	bad(o.last < time.Second || o.last > time.Minute, "--duration: must be 1s to 1m, is %s", o.last)
	bad(o.repeats < 1 || o.repeats > 100, "--repeats: must be 1 to 100, is %d", o.repeats)
	return errors.Join(errs...)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}
