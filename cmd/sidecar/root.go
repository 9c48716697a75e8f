// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

const rootLong = `sidecar is the proxy beside one instance of a service. The service talks plain
HTTP to it; discovery, balancing, retries, circuit breaking, tracing and the copy
of the traffic for the data lake happen here, as the control plane says.

It listens on three addresses:
  inbound   :15006           other sidecars, towards the application (--app)
  outbound  127.0.0.1:15001  the application, towards other services by name:
                             Host: payments, or http_proxy=http://127.0.0.1:15001
  admin     127.0.0.1:15000  Envoy's admin paths: /ready /stats /clusters …

SIGTERM and SIGINT end it in order: it deregisters, lets what is under way end,
for at most --drain-time-s, and hands over what waits. A second one ends it at once,
with exit code 4.
SIGHUP reads the bootstrap again. SIGUSR1 opens the access and event logs anew.
SIGUSR2 starts the program on disk with the same arguments, which takes over: nothing
is refused, cut or lost. A process started with --upgrade does the same.`

const rootExample = `  # beside the service "orders" that listens on port 8080
  sidecar --service orders --app 127.0.0.1:8080 --controlplane 127.0.0.1:15010

  # a second one on the same host, only calling others: addresses and a folder of its own
  sidecar --service web --controlplane 127.0.0.1:15010 --outbound 127.0.0.1:16001 --admin 127.0.0.1:16000 --data ./web

  # start the application when the sidecar is ready, end with its exit code
  http_proxy=http://127.0.0.1:15001 sidecar exec --service report --controlplane 127.0.0.1:15010 -- ./report --daily

  # where would this request go, and why? (asks the sidecar that runs)
  sidecar explain GET http://payments/v1/x -H 'x-user: 7'

  # what was ejected, opened or refused here, and why
  sidecar events --follow

  # an Envoy v3 bootstrap
  sidecar -c bootstrap.yaml
  sidecar validate -c bootstrap.yaml`

const execLong = `exec starts the sidecar, waits until it is ready, runs the command beside it and
ends with the command's exit code.

Signals are handed on to the command and to nothing else. SIGTERM and SIGINT are
held back while the inbound side deregisters and drains, so that the command still
answers what was sent to it; a second one goes through at once. When the command has
ended, what it has sent to others still arrives, for at most --drain-time-s.

The command's environment is that of exec: no variable for a proxy is set in it.
For a command that calls services by name, set http_proxy to the --outbound address.`

// newCommand builds the command line.
func newCommand(p parts) *cobra.Command {
	root := &cobra.Command{
		Use:           "sidecar --service NAME --app HOST:PORT --controlplane HOST:PORT",
		Short:         "The proxy beside one instance of a service",
		Long:          rootLong + "\n\n" + exitCodesHelp,
		Example:       rootExample,
		Version:       version(),
		Args:          noArguments,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	root.SetVersionTemplate("sidecar version {{.Version}}\n")
	o := bindFlags(root)
	root.RunE = func(c *cobra.Command, _ []string) error {
		opts, err := o.read(c)
		if err != nil {
			return err
		}
		if opts.Mode == "validate" {
			return validate(c, opts, p)
		}
		return run(c.Context(), opts, p)
	}
	root.AddCommand(newValidate(p), newExec(p), newExplain(), newEvents(), newIntercept(), newVersion())
	refuseUnknownShells(root)
	return root
}

func newValidate(p parts) *cobra.Command {
	c := &cobra.Command{
		Use:     "validate -c FILE",
		Short:   "Check a bootstrap and report every error with its file and line",
		Long:    "validate reads a bootstrap as the sidecar would, reports every error with file:line\nand field path, and ends with 0 if there is none, with 1 otherwise. Nothing is started.",
		Example: "  sidecar validate -c bootstrap.yaml\n  sidecar validate --config-yaml \"$(cat bootstrap.yaml)\"",
		Args:    noArguments,
	}
	o := bindFlags(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		opts, err := o.read(c)
		if err != nil {
			return err
		}
		return validate(c, opts, p)
	}
	return c
}

func validate(c *cobra.Command, o Options, p parts) error {
	if o.Common() {
		_, err := fmt.Fprintln(c.OutOrStdout(), "flags OK: the configuration comes from the control plane")
		return err
	}
	if err := p.validate(o); err != nil {
		return err
	}
	name := o.ConfigPath
	if name == "" {
		name = "--config-yaml"
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "configuration '%s' OK\n", name)
	return err
}

func newExec(p parts) *cobra.Command {
	var readyTimeout time.Duration
	c := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARGUMENT…]",
		Short: "Start the sidecar, then a command, and end with its exit code",
		Long:  execLong + "\n\n" + exitCodesHelp,
		Example: `  sidecar exec --service orders --app 127.0.0.1:8080 --controlplane 127.0.0.1:15010 -- ./orders
  http_proxy=http://127.0.0.1:15001 sidecar exec --service report --controlplane 127.0.0.1:15010 --ready-timeout 30s -- sh -c './report --daily'`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("exec: want a command after -- (see sidecar exec --help)")}
			}
			if at := c.ArgsLenAtDash(); at > 0 {
				return usageError{fmt.Errorf("exec: unexpected %q before --", args[0])}
			}
			return nil
		},
	}
	o := bindFlags(c)
	c.Flags().DurationVar(&readyTimeout, "ready-timeout", 0, "how long to wait for the first configuration; 0 waits for ever")
	c.Flags().SetInterspersed(false) // the command's own flags are its own
	c.RunE = func(c *cobra.Command, args []string) error {
		opts, err := o.read(c)
		if err != nil {
			return err
		}
		if opts.Mode != "serve" {
			return fmt.Errorf("--mode: %q: exec can only serve", opts.Mode)
		}
		if opts.Upgrade {
			return errors.New("--upgrade: not with exec: the command is a child of the running one")
		}
		return runExec(c.Context(), opts, args, readyTimeout, p)
	}
	return c
}

// refuseUnknownShells makes a misspelt shell an error: cobra shows its help for it,
// with success.
func refuseUnknownShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.SuggestionsMinimumDistance = 2
			c.Args, c.RunE = noArguments, func(c *cobra.Command, _ []string) error { return c.Help() }
		}
	}
}

// noArguments refuses what is neither a flag nor a command.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		if !c.HasSubCommands() {
			return usageError{fmt.Errorf("%s takes no arguments, got %q (see %s --help)", c.CommandPath(), args[0], c.CommandPath())}
		}
		hint := ""
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("; did you mean %q?", near[0])
		}
		return usageError{fmt.Errorf("unknown command %q for %q%s (see %s --help)", args[0], c.CommandPath(), hint, c.CommandPath())}
	}
	return nil
}

// maxSeconds is a week: more is a mistake.
const maxSeconds = 7 * 24 * 3600

// read fills in the defaults and checks everything that flags alone can tell.
func (f *flags) read(c *cobra.Command) (Options, error) {
	o := f.options
	if !c.Flags().Changed("concurrency") {
		o.Concurrency = -1
	}
	for name, seconds := range map[string]int64{"drain-time-s": f.drainSeconds, "parent-shutdown-time-s": f.parentSeconds} {
		if seconds < 0 || seconds > maxSeconds {
			return o, fmt.Errorf("--%s: %d: want 0 to %d", name, seconds, maxSeconds)
		}
	}
	o.DrainTime = time.Duration(f.drainSeconds) * time.Second
	if !c.Flags().Changed("drain-time-s") {
		o.DrainTime = -1
	}
	o.ParentShutdownTime = time.Duration(f.parentSeconds) * time.Second
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	o.setDefaults(hostname)
	return o, o.validate()
}
