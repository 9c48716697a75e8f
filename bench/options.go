// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Options says what one run measures.
type Options struct {
	Rounds      int           `json:"rounds"`
	Duration    time.Duration `json:"durationNanos"` // of one wrk run
	Connections []int         `json:"connections"`
	Bodies      []string      `json:"bodies"`
	Only        []string      `json:"only,omitempty"` // names of proxies; empty is all
	Quick       bool          `json:"quick,omitempty"`

	// Protocols are the scenarios of the protocol part.
	Protocols []string `json:"protocols,omitempty"`

	// Which parts run; none set is all.
	Load     bool `json:"load"`
	Protocol bool `json:"protocol"`
	Idle     bool `json:"idle"`
	Clusters bool `json:"clusters"`

	IdleConnections int    `json:"idleConnections"`
	ClusterCount    int    `json:"clusterCount"`
	Out             string `json:"-"`
	Sidecar         string `json:"-"` // a program to use instead of building one
	Profile         string `json:"-"` // the file for a CPU profile, which then is all that is made
	KeepLogs        bool   `json:"-"`
}

const long = `bench runs the sidecar, nginx, HAProxy and Envoy side by side and writes
DATE.md, latest.md, the plot and latest.json to the --out folder.

It needs Linux with two cores, nginx, haproxy, wrk and h2load (test/peers/benchtools
install) and Envoy, which test/peers/envoy installs by itself. A run with a failed
request is invalid: it is written, says so, and ends with exit status 1.

With --profile it measures nothing: it puts the loads of --connections and --scenarios
on one sidecar with all features, each for --duration (4s where none is given), and
writes the CPU profile that guides builds of the sidecar (go build -pgo). That takes
about three minutes, and needs no Envoy.`

func newCommand(args []string) *cobra.Command {
	var o Options
	var loads []string
	c := &cobra.Command{
		Use:           "bench",
		Short:         "Measure the sidecar beside nginx, HAProxy and Envoy",
		Long:          long,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		Example:       "  go run ./bench\n  go run ./bench --quick\n  go run ./bench --rounds 9 --only nginx,sidecar-on --connections 64 --scenarios small\n  go run ./bench --profile " + sidecarProfile,
	}
	f := c.Flags()
	f.SortFlags = false
	f.IntVar(&o.Rounds, "rounds", 5, "rounds; medians are over them")
	f.DurationVar(&o.Duration, "duration", 3*time.Second, "time that one proxy is loaded in a round, in whole seconds")
	f.IntSliceVar(&o.Connections, "connections", []int{4, 64, 512}, "keep-alive connections of the load")
	f.StringSliceVar(&loads, "scenarios", append(bodyNames(), scenarioNames()...), "response bodies of the load part, scenarios of the protocol part; a part of which none is named is left out")
	f.StringSliceVar(&o.Only, "only", nil, "proxies to measure, of "+strings.Join(proxyNames(), ", "))
	f.BoolVar(&o.Load, "load", false, "the load part (without any of these four: all)")
	f.BoolVar(&o.Protocol, "protocols", false, "the part with HTTP/2, TLS, gRPC, mutual TLS, handshakes and TCP")
	f.BoolVar(&o.Idle, "idle", false, "the part with memory at rest and of idle connections")
	f.BoolVar(&o.Clusters, "clusters", false, "the part with memory and start of many clusters")
	f.IntVar(&o.IdleConnections, "idle-connections", 5000, "idle connections to open")
	f.IntVar(&o.ClusterCount, "cluster-count", 1000, "clusters to load, of ten endpoints each")
	f.BoolVar(&o.Quick, "quick", false, "starts everything for one short round: no failed request is all it asks (for CI)")
	f.StringVar(&o.Out, "out", "bench/results", "folder for the results")
	f.StringVar(&o.Sidecar, "sidecar", "", "sidecar program to measure (default: one built from this tree, guided by "+sidecarProfile+" but with --quick and --profile)")
	f.StringVar(&o.Profile, "profile", "", "only write a CPU profile of the sidecar under the loads to this file")
	f.BoolVar(&o.KeepLogs, "keep-logs", false, "keep the folder with configurations and logs, and print its name")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.Quick {
			o.quicken(c.Flags().Changed)
		}
		if o.Profile != "" && !c.Flags().Changed("duration") {
			o.Duration = profileTime
		}
		o.choose(loads)
		if err := errors.Join(o.validate(), o.validateProfile(c.Flags().Changed)); err != nil {
			return err
		}
		if o.Profile != "" {
			return runProfile(c.Context(), o, c.ErrOrStderr())
		}
		return run(c.Context(), o, c.OutOrStdout())
	}
	c.SetArgs(longFlags(args))
	return c
}

// choose sorts the names of scenarios into those of the parts, and settles which
// parts run: all where none is named, but for one that has nothing to load.
func (o *Options) choose(loads []string) {
	for _, name := range loads {
		if slices.Contains(scenarioNames(), name) {
			o.Protocols = append(o.Protocols, name)
		} else {
			o.Bodies = append(o.Bodies, name)
		}
	}
	if !o.Load && !o.Protocol && !o.Idle && !o.Clusters {
		o.Load, o.Protocol, o.Idle, o.Clusters = len(o.Bodies) > 0, len(o.Protocols) > 0, true, true
	}
}

// longFlags accepts a flag's name after one hyphen, as Go's own tools write it.
func longFlags(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if a == "--" {
			break
		}
		if len(a) > 2 && a[0] == '-' && a[1] != '-' {
			out[i] = "-" + a
		}
	}
	return out
}

// quicken shortens what was not asked for in particular.
func (o *Options) quicken(changed func(string) bool) {
	short := Options{
		Rounds: 1, Duration: time.Second, Connections: []int{64},
		IdleConnections: 200, ClusterCount: 100,
	}
	if !changed("rounds") {
		o.Rounds = short.Rounds
	}
	if !changed("duration") {
		o.Duration = short.Duration
	}
	if !changed("connections") {
		o.Connections = short.Connections
	}
	if !changed("idle-connections") {
		o.IdleConnections = short.IdleConnections
	}
	if !changed("cluster-count") {
		o.ClusterCount = short.ClusterCount
	}
}

func (o *Options) validate() error {
	var errs []error
	bad := func(when bool, format string, args ...any) {
		if when {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(o.Rounds < 1 || o.Rounds > 1000, "--rounds: must be 1 to 1000, is %d", o.Rounds)
	bad(o.Duration < time.Second || o.Duration%time.Second != 0, "--duration: must be whole seconds, is %s", o.Duration)
	bad(len(o.Connections) == 0, "--connections: names none")
	for _, n := range o.Connections {
		bad(n < 1 || n > maxLoadConnections, "--connections: must be 1 to %d, is %d", maxLoadConnections, n)
	}
	bad(len(o.Bodies)+len(o.Protocols) == 0, "--scenarios: names none")
	for _, b := range o.Bodies {
		bad(!slices.Contains(bodyNames(), b), "--scenarios: %q is none of %s", b, strings.Join(append(bodyNames(), scenarioNames()...), ", "))
	}
	for _, p := range o.Only {
		bad(!slices.Contains(proxyNames(), p), "--only: %q is none of %s", p, strings.Join(proxyNames(), ", "))
	}
	bad(o.IdleConnections < 100, "--idle-connections: must be at least 100, is %d", o.IdleConnections)
	bad(o.ClusterCount < 10 || o.ClusterCount > 50_000, "--cluster-count: must be 10 to 50000, is %d", o.ClusterCount)
	return errors.Join(errs...)
}

// withoutProfile are the flags that mean nothing to a profile.
var withoutProfile = []string{"rounds", "only", "load", "protocols", "idle", "clusters", "idle-connections", "cluster-count", "quick", "out"}

// validateProfile refuses what a profile has no use for.
func (o *Options) validateProfile(changed func(string) bool) error {
	if !changed("profile") {
		return nil
	}
	var errs []error
	if o.Profile == "" {
		errs = append(errs, errors.New("--profile: names no file"))
	}
	if o.Duration > maxProfileTime {
		errs = append(errs, fmt.Errorf("--duration: must be at most %s with --profile, is %s", maxProfileTime, o.Duration))
	}
	for _, name := range withoutProfile {
		if changed(name) {
			errs = append(errs, fmt.Errorf("--%s: has no meaning with --profile: leave it out", name))
		}
	}
	return errors.Join(errs...)
}

// guided reports whether a sidecar that is built for this run is built as it is
// shipped: a guided build compiles everything anew, and a profile of one would follow the
// profile before.
func (o *Options) guided() bool { return !o.Quick && o.Profile == "" }

// measures reports whether a proxy is among those asked for.
func (o *Options) measures(name string) bool {
	return len(o.Only) == 0 || slices.Contains(o.Only, name)
}
