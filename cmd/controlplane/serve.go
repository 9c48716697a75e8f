// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sessionkeys"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	config      string
	data        string
	lake        string
	http        string
	xds         string
	xdsMTLS     string
	authority   authorityOptions
	tokenFile   string
	insecure    bool
	insecureXDS bool
	logLevel    string
	logFormat   string
	spanMemory  string
	drain       time.Duration
	// lakeInterval is how long tapped traffic waits before it is a file.
	lakeInterval time.Duration
	// sessionKeyLife is how long a key encrypts sessions.
	sessionKeyLife time.Duration

	// Parsed by check.
	level      slog.Level
	spanBytes  int
	httpListen listenAddress
	xdsListen  listenAddress
	mtlsListen listenAddress
	mtls       bool // mtlsListen is served
}

func newServe(c *client) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the control plane",
		Long: `serve runs the control plane with an embedded store in one process. It prints one
line for each address when it is ready, and ends cleanly on SIGTERM or Ctrl-C, for
at most --drain-time. A second signal ends it at once.

On loopback addresses no credentials are needed. Bound anywhere else, callers need
the bearer token that is made at the first start in the file "token" of --data, or on
--xds-mtls a client certificate. --http and --xds are plaintext.

The control plane is the mesh's certificate authority, in the folder "ca" of --data,
or hands on one from outside with --ca-cert and --ca-key. See "controlplane ca".

Objects of --config are read at the start and whenever a file changes. A file with
errors never unseats what it held before; status and get events show what is wrong.
They go before objects of the same name that were applied, which are kept and in force
again when no file has them any more; get shows the source of each.

Traces of the control plane itself go where the standard OTEL_* environment
variables say (OTEL_EXPORTER_OTLP_ENDPOINT and others); without them, nowhere.`,
		Example: `  controlplane serve
  controlplane serve --config conf.d --data /var/lib/outrigger
  controlplane serve --http 0.0.0.0:15014 --xds 10.0.0.5:15010 --insecure-xds`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return serve(cmd.Context(), c.io, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "folder of objects, watched")
	f.StringVar(&o.data, "data", "./outrigger-data", "folder of the store, made with mode 0700")
	f.StringVar(&o.lake, "lake", "", "folder of the lake that tapped traffic goes to (default the folder lake in --data)")
	f.DurationVar(&o.lakeInterval, "lake-interval", 30*time.Second, "how long tapped traffic waits before it is a Parquet file")
	f.StringVar(&o.http, "http", "127.0.0.1:15014", "address of the REST API, Zipkin API, metrics and health; unix:PATH works too")
	f.StringVar(&o.xds, "xds", defaultXDS, "address of xDS and the sidecar service; unix:PATH works too")
	f.StringVar(&o.xdsMTLS, "xds-mtls", "", "address of xDS and the sidecar service with mutual TLS; off for none (default \""+defaultMTLS+"\", where --xds is moved none)")
	o.authority.bind(f)
	f.DurationVar(&o.sessionKeyLife, "session-key-life", sessionkeys.DefaultLife, "how long a key encrypts sessions; what it has encrypted is read for as long again")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the bearer token, in place of the one in --data")
	f.BoolVar(&o.insecure, "insecure", false, "ask for no token off loopback")
	f.BoolVar(&o.insecureXDS, "insecure-xds", false, "allow plaintext xDS off loopback")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json, on standard error")
	f.StringVar(&o.spanMemory, "span-memory", "64MiB", "memory for recent spans")
	f.DurationVar(&o.drain, "drain-time", 5*time.Second, "how long requests may end after SIGTERM")
	completeFlag(cmd, "log-level", "debug", "info", "warn", "error")
	completeFlag(cmd, "log-format", "text", "json")
	for _, folder := range []string{"config", "data", "lake"} {
		_ = cmd.MarkFlagDirname(folder) // it fails only where there is no such flag
	}
	return cmd
}

// check validates every flag before anything is opened.
func (o *serveOptions) check() error {
	if err := o.authority.check(); err != nil {
		return err
	}
	if err := o.level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return exitWith(exitUsage, "--log-level: want debug, info, warn or error, got %q", o.logLevel)
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		return exitWith(exitUsage, "--log-format: want text or json, got %q", o.logFormat)
	}
	var size mesh.Size
	if err := size.UnmarshalText([]byte(o.spanMemory)); err != nil {
		return exitWith(exitUsage, "--span-memory: %w", err)
	}
	if size < 1<<20 {
		return exitWith(exitUsage, "--span-memory: want at least 1MiB, got %s", size)
	}
	o.spanBytes = int(size)
	if o.sessionKeyLife < sessionkeys.MinLife || o.sessionKeyLife > sessionkeys.MaxLife {
		return exitWith(exitUsage, "--session-key-life: want %s to %s, got %s", sessionkeys.MinLife, sessionkeys.MaxLife, o.sessionKeyLife)
	}
	if o.drain < 0 {
		return exitWith(exitUsage, "--drain-time: must not be negative")
	}
	if o.lakeInterval < 100*time.Millisecond || o.lakeInterval > time.Hour {
		return exitWith(exitUsage, "--lake-interval: want 100ms to 1h, got %s", o.lakeInterval)
	}
	var err error
	if o.httpListen, err = parseListen("--http", o.http); err != nil {
		return err
	}
	if o.xdsListen, err = parseListen("--xds", o.xds); err != nil {
		return err
	}
	if !o.xdsListen.loopback && !o.insecureXDS {
		return exitWith(exitUsage, "--xds %s: is not a loopback address and xDS would be plaintext; bind it to 127.0.0.1 and use --xds-mtls, or accept that with --insecure-xds", o.xds)
	}
	if o.xdsMTLS == "" && o.xds == defaultXDS { // who moves one port may have several control planes here
		o.xdsMTLS = defaultMTLS
	}
	if o.mtls = o.xdsMTLS != "" && o.xdsMTLS != "off"; o.mtls {
		if o.mtlsListen, err = parseListen("--xds-mtls", o.xdsMTLS); err != nil {
			return err
		}
	}
	if o.data == "" {
		return exitWith(exitUsage, "--data: name a folder")
	}
	if o.config == "" {
		return nil
	}
	if info, err := os.Stat(o.config); err != nil {
		return exitWith(exitUsage, "--config %s: %w", o.config, bare(err))
	} else if !info.IsDir() {
		return exitWith(exitUsage, "--config: %s is not a folder", o.config)
	}
	return nil
}

func (o *serveOptions) lakeDir() string {
	if o.lake != "" {
		return o.lake
	}
	return filepath.Join(o.data, "lake")
}

func (o *serveOptions) logger(io streams) *slog.Logger {
	h := &slog.HandlerOptions{Level: o.level}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(io.err, h))
	}
	return slog.New(slog.NewTextHandler(io.err, h))
}

// openToken gives the token that callers off loopback must send; empty for none.
func (o *serveOptions) openToken() (string, error) {
	switch {
	case o.tokenFile != "":
		return readToken(o.tokenFile)
	case o.insecure:
		return "", nil
	}
	token, err := makeToken(o.data)
	if err != nil && (!o.httpListen.loopback || !o.xdsListen.loopback) {
		return "", exitWith(exitCannotServe, "--data: token: %w (a port off loopback needs one; --insecure serves without)", err)
	}
	if err != nil {
		return "", exitWith(exitCannotServe, "--data: token: %w", err)
	}
	return token, nil
}

// listening is the line that is printed for an address.
func listening(what, addr string, a listenAddress, token string, plaintext bool) string {
	notes := ""
	switch {
	case a.loopback:
	case token == "":
		notes = " (anybody may call it: --insecure)"
	case plaintext:
		notes = " (token wanted, plaintext)"
	}
	return fmt.Sprintf("%-5s %s%s", what, addr, notes)
}
