// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

//go:embed configs
var configs embed.FS

const maxLoadConnections = 4096

// proxy is one program with one configuration. Features are JSON access log,
// trace context with 1 % sampled and exported, metrics, request id, breaker and
// outlier detection, least request, retry policy.
type proxy struct {
	Name     string
	Kind     string // nginx, haproxy, envoy or sidecar
	Features bool
	// Resilience is, beyond the features: active health checks, outlier detection by
	// every detector, slow start, slow calls and recovery in the circuit, retries with
	// budget, waits and other hosts, hedging, timeouts, a local rate limit, adaptive
	// concurrency and fault injection.
	Resilience bool
	template   string
	profiled   bool // has an admin port that hands out CPU profiles
}

// proxies is every contestant, in the order of tables and plots.
var proxies = []proxy{
	{Name: "nginx", Kind: "nginx", template: "nginx.conf.tmpl"},
	{Name: "haproxy", Kind: "haproxy", template: "haproxy.cfg.tmpl"},
	{Name: "envoy", Kind: "envoy", template: "mesh.yaml.tmpl"},
	{Name: "envoy-on", Kind: "envoy", Features: true, template: "mesh.yaml.tmpl"},
	{Name: "sidecar", Kind: "sidecar", template: "mesh.yaml.tmpl"},
	{Name: "sidecar-on", Kind: "sidecar", Features: true, template: "mesh.yaml.tmpl"},
	{Name: "sidecar-all", Kind: "sidecar", Features: true, Resilience: true, template: "mesh.yaml.tmpl"},
}

func proxyNames() []string {
	var names []string
	for _, p := range proxies {
		names = append(names, p.Name)
	}
	return names
}

// settings is what the configuration templates see.
type settings struct {
	Name           string
	Dir            string
	Backends       []int // the servers behind; the backend's own configuration
	Listeners      []frontend
	Upstreams      []upstream
	TLS            credentials
	Collector      int
	AccessLog      string
	MaxConnections int
	OpenFiles      uint64
	Features       bool
	Resilience     bool
	Sidecar        bool
	StreamModule   string // nginx's, where a frontend is TCP
	Clusters       []namedEndpoints
}

// frontend is a port of a proxy.
type frontend struct {
	Name     string
	Port     int
	Upstream string
	TLS      bool
	Mutual   bool // TLS with a client certificate
	HTTP2    bool // what nginx wants to be told
	ToMutual bool // the upstream is spoken to over mutual TLS
	TCP      bool
}

// upstream is what a frontend forwards to.
type upstream struct {
	Name   string
	Ports  []int
	HTTP2  bool
	Mutual bool
	TCP    bool
}

// namedEndpoints is a cluster that nobody calls; it is there to be kept.
type namedEndpoints struct {
	Name      string
	Endpoints []string
}

// manyClusters names n clusters of ten endpoints, all different.
func manyClusters(n int) []namedEndpoints {
	out := make([]namedEndpoints, n)
	for i := range out {
		out[i].Name = fmt.Sprintf("service-%05d", i)
		for k := range 10 {
			host := i*10 + k + 1
			out[i].Endpoints = append(out[i].Endpoints, fmt.Sprintf("10.%d.%d.%d", host>>16&0xff, host>>8&0xff, host&0xff))
		}
	}
	return out
}

// render writes a configuration and returns its path. What is written as YAML is
// given as JSON: Envoy's YAML reader takes nearly twice the time, and leaves as
// much memory as the clusters that it read.
func render(name string, s settings, file string) (string, error) {
	t, err := template.ParseFS(configs, "configs/"+name)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, s); err != nil {
		return "", err
	}
	out := text.Bytes()
	if base, isYAML := strings.CutSuffix(file, ".yaml"); isYAML {
		file = base + ".json"
		if out, err = yaml.YAMLToJSON(out); err != nil {
			return "", fmt.Errorf("configs/%s: %w", name, err)
		}
	}
	return file, os.WriteFile(file, out, 0o644)
}

// tools is where the programs are.
type tools struct {
	Nginx, HAProxy, Wrk, H2load, Envoy, Sidecar string
	NginxStream                                 string // its module for TCP
}

// command is the argument vector that runs a proxy in the foreground with one
// worker.
func (t *tools) command(kind, config string) []string {
	switch kind {
	case "nginx":
		return []string{t.Nginx, "-c", config}
	case "haproxy":
		return []string{t.HAProxy, "-db", "-q", "-f", config}
	case "envoy":
		return []string{t.Envoy, "-c", config, "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"}
	default:
		return []string{t.Sidecar, "-c", config, "--concurrency", "1", "--drain-time-s", "1", "-l", "error"}
	}
}

// findTools looks for what is installed and builds the sidecar.
func findTools(ctx context.Context, o Options, dir string) (*tools, error) {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}", modulePath)
	if err != nil {
		return nil, fmt.Errorf("bench must be run within its module: %w", err)
	}
	t := &tools{Sidecar: o.Sidecar}
	var errs []error
	for name, to := range map[string]*string{"nginx": &t.Nginx, "haproxy": &t.HAProxy, "wrk": &t.Wrk, "h2load": &t.H2load} {
		if *to, err = lookPath(name); err != nil {
			errs = append(errs, fmt.Errorf("%s is not installed: run test/peers/benchtools install", name))
		}
	}
	t.NginxStream = nginxStream
	if _, err := os.Stat(t.NginxStream); err != nil {
		errs = append(errs, errors.New("nginx has no stream module: run test/peers/benchtools install"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if o.Profile == "" { // a profile is of the sidecar alone
		if t.Envoy, err = output(ctx, filepath.Join(root, "test/peers/envoy"), "path"); err != nil {
			return nil, fmt.Errorf("envoy is not installed: run test/peers/envoy install: %w", err)
		}
	}
	if t.Sidecar == "" {
		t.Sidecar = filepath.Join(dir, "sidecar")
		guided := "off"
		if o.guided() {
			guided = filepath.Join(root, sidecarProfile)
		}
		if _, err := output(ctx, "go", "build", "-pgo", guided, "-o", t.Sidecar, sidecarPackage); err != nil {
			return nil, fmt.Errorf("build cmd/sidecar: %w", err)
		}
	}
	return t, nil
}

// nginxStream is where Debian's libnginx-mod-stream lies.
const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

const modulePath = "github.com/outrigger-mesh/outrigger"

// lookPath also looks where Debian keeps servers, which is not in everybody's PATH.
func lookPath(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// output runs a program and returns its output; the error has what it complained
// of.
func output(ctx context.Context, argv ...string) (string, error) {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(complaint.String(), 20))
	}
	return strings.TrimSpace(string(out)), nil
}

// tail is the last n lines.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

var versionNumber = regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+`)

// versions asks each program what it is.
func (t *tools) versions(ctx context.Context) map[string]string {
	ask := func(argv ...string) string {
		// wrk ends with an error after it has said its version.
		out, _ := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		return cmp.Or(versionNumber.FindString(strings.ReplaceAll(string(out), argv[0], "")), "unknown")
	}
	return map[string]string{
		"nginx": ask(t.Nginx, "-v"), "haproxy": ask(t.HAProxy, "-v"),
		"envoy": ask(t.Envoy, "--version"), "wrk": ask(t.Wrk, "-v"),
		"h2load": ask(t.H2load, "--version"),
	}
}
