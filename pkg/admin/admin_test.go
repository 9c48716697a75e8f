// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed shows the same at all times.
type fixed struct {
	samples func() []metrics.Sample
	err     error
}

func (f *fixed) Stats(context.Context) ([]metrics.Sample, error) {
	if f.samples == nil {
		return nil, f.err
	}
	return f.samples(), f.err
}

func (f *fixed) WriteClusters(w io.Writer, asJSON bool, keep func(string) bool) error {
	for _, name := range []string{"orders", "payments"} {
		if keep == nil || keep(name) {
			fmt.Fprintf(w, "%s %v\n", name, asJSON)
		}
	}
	return nil
}

func (f *fixed) WriteListeners(w io.Writer, asJSON bool) error {
	_, err := fmt.Fprintf(w, "listeners %v\n", asJSON)
	return err
}

func (f *fixed) RuntimeValues() map[string]string { return map[string]string{"a.b": "1"} }

// port is a server that answers.
type port struct {
	t      *testing.T
	s      *Server
	client *http.Client
	events chan string
	state  atomic.Uint32
	level  slog.LevelVar
}

func open(t *testing.T, edit func(*Config)) *port {
	t.Helper()
	p := &port{t: t, events: make(chan string, 16)}
	c := Config{
		Address: "127.0.0.1:0", Proxy: &fixed{samples: someSamples}, State: func() State { return State(p.state.Load()) },
		Version: "test/1", Concurrency: 2, Options: map[string]any{"concurrency": 2}, Node: map[string]any{"id": "n"},
		Dump:        func(bool) ([]byte, error) { return os.ReadFile("testdata/dump.json") },
		Waiting:     func() []string { return []string{"cluster orders"} },
		Level:       &p.level,
		Drain:       func(d Drain) { p.events <- fmt.Sprintf("drain %+v", d) },
		Quit:        func() { p.events <- "quit" },
		ReopenLogs:  func() { p.events <- "reopen" },
		HealthCheck: func(fail bool) { p.events <- fmt.Sprintf("fail %v", fail) },
		Pages:       []Page{{Path: "/agent", Help: "print the lease", JSON: func() any { return map[string]int{"lease": 1} }}},
	}
	if edit != nil {
		edit(&c)
	}
	var err error
	if p.s, err = New(c); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.s.Serve() }()
	tr := &http.Transport{}
	if path, ok := strings.CutPrefix(p.s.Addr(), "unix:"); ok {
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}
	p.client = &http.Client{Transport: tr, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := p.s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return p
}

// do sends a request; extra are headers "name: value".
func (p *port) do(method, path string, extra ...string) (*http.Response, string) {
	p.t.Helper()
	host := p.s.Addr()
	if strings.HasPrefix(host, "unix:") {
		host = "localhost"
	}
	q, err := http.NewRequest(method, "http://"+host+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, h := range extra {
		k, v, _ := strings.Cut(h, ": ")
		if k == "Host" {
			q.Host = v
		} else {
			q.Header.Set(k, v)
		}
	}
	resp, err := p.client.Do(q)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(b)
}

func (p *port) want(method, path string, status int, body string) {
	p.t.Helper()
	resp, got := p.do(method, path)
	if resp.StatusCode != status || got != body {
		p.t.Errorf("%s %s: got %d %q, want %d %q", method, path, resp.StatusCode, got, status, body)
	}
}

func (p *port) wantEvent(want string) {
	p.t.Helper()
	select {
	case got := <-p.events:
		if got != want {
			p.t.Errorf("got the action %q, want %q", got, want)
		}
	case <-time.After(5 * time.Second):
		p.t.Errorf("no action, want %q", want)
	}
}

func TestReadinessFollowsStateAndHealthCheck(t *testing.T) {
	p := open(t, nil)
	for _, c := range []struct {
		state  State
		status int
		body   string
	}{
		{PreInitializing, 503, "PRE_INITIALIZING\n"}, {Initializing, 503, "INITIALIZING\n"}, {Draining, 503, "DRAINING\n"}, {Live, 200, "LIVE\n"},
	} {
		p.state.Store(uint32(c.state))
		p.want("GET", "/ready", c.status, c.body)
	}
	p.want("POST", "/healthcheck/fail", 200, "OK\n")
	p.wantEvent("fail true")
	p.want("GET", "/ready", 503, "DRAINING\n")
	p.want("POST", "/healthcheck/ok", 200, "OK\n")
	p.wantEvent("fail false")
	p.want("GET", "/ready", 200, "LIVE\n")
}

func TestWhatOnlyReadsAnswersInEnvoysForms(t *testing.T) {
	p := open(t, nil)
	p.want("GET", "/certs", 200, "{\n \"certificates\": []\n}\n")
	p.want("GET", "/runtime", 200, "{\n \"entries\": {\n  \"a.b\": {\n   \"layer_values\": [\n    \"1\"\n   ],\n   \"final_value\": \"1\"\n  }\n },\n \"layers\": [\n  \"merged\"\n ]\n}\n")
	p.want("GET", "/hot_restart_version", 200, "disabled\n")
	p.want("GET", "/init_dump", 200, "{\n \"unready_targets_dumps\": [\n  {\n   \"name\": \"init manager Server\",\n   \"target_names\": [\n    \"cluster orders\"\n   ]\n  }\n ]\n}\n")
	p.want("GET", "/clusters", 200, "orders false\npayments false\n")
	p.want("GET", "/clusters?format=json&filter=^pay", 200, "payments true\n")
	p.want("GET", "/listeners", 200, "listeners false\n")
	p.want("POST", "/listeners?format=json", 200, "listeners true\n")
	p.want("GET", "/agent", 200, "{\n \"lease\": 1\n}\n")
	p.want("GET", "/contention", 200, "Lock contention is not measured: profiling is off (--admin-profiling).\n")

	resp, body := p.do("GET", "/server_info")
	var info struct {
		Version, State string
		Uptime         string         `json:"uptime_current_epoch"`
		Options        map[string]any `json:"command_line_options"`
		Node           map[string]any
	}
	if err := json.Unmarshal([]byte(body), &info); err != nil {
		t.Fatal(err)
	}
	if info.Version != "test/1" || info.State != "LIVE" || !regexp.MustCompile(`^\d+s$`).MatchString(info.Uptime) ||
		info.Options["concurrency"] != 2.0 || info.Node["id"] != "n" {
		t.Errorf("server_info: %s", body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-cache, max-age=0", "X-Content-Type-Options": "nosniff",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if resp, body := p.do("HEAD", "/ready"); resp.StatusCode != 200 || body != "" {
		t.Errorf("HEAD /ready: %d %q", resp.StatusCode, body)
	}
	var mem map[string]string
	if _, body := p.do("GET", "/memory"); json.Unmarshal([]byte(body), &mem) != nil || len(mem) != 6 || mem["allocated"] == "0" || mem["total_physical_bytes"] == "0" {
		t.Errorf("memory: %s", body)
	}
}

func TestWhatChangesSomethingTakesPOSTOnly(t *testing.T) {
	p := open(t, func(c *Config) { c.AllowTap, c.Tap, c.Profiling = true, http.NotFoundHandler(), true })
	for path, cmd := range p.s.commands {
		if !cmd.post {
			continue
		}
		resp, body := p.do("GET", path)
		if resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" || body != "Method GET not allowed, POST required.\n" {
			t.Errorf("GET %s: got %d %q, Allow %q", path, resp.StatusCode, body, resp.Header.Get("Allow"))
		}
	}
	select {
	case e := <-p.events:
		t.Errorf("a GET led to %q", e)
	default:
	}
	if resp, _ := p.do("DELETE", "/stats"); resp.StatusCode != 405 {
		t.Errorf("DELETE: %d", resp.StatusCode)
	}
	for _, path := range []string{"/drain_listeners", "/quitquitquit", "/healthcheck/fail", "/logging", "/reopen_logs", "/reset_counters", "/tap", "/cpuprofiler"} {
		if p.s.commands[path] == nil || !p.s.commands[path].post {
			t.Errorf("%s takes GET", path)
		}
	}
}

func TestActionsReachTheirOwners(t *testing.T) {
	p := open(t, nil)
	for _, c := range []struct{ path, event string }{
		{"/drain_listeners", "drain {Graceful:false InboundOnly:false SkipExit:false}"},
		{"/drain_listeners?graceful&inboundonly", "drain {Graceful:true InboundOnly:true SkipExit:false}"},
		{"/drain_listeners?graceful&skip_exit", "drain {Graceful:true InboundOnly:false SkipExit:true}"},
		{"/reopen_logs", "reopen"}, {"/quitquitquit", "quit"},
	} {
		p.want("POST", c.path, 200, "OK\n")
		p.wantEvent(c.event)
	}
	// What is misspelt must not do more than was meant.
	for _, path := range []string{"/drain_listeners?inboundoly", "/quitquitquit?x", "/reset_counters?a=b", "/healthcheck/fail?x"} {
		if resp, body := p.do("POST", path); resp.StatusCode != 400 || !strings.Contains(body, "unknown parameter") {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	select {
	case e := <-p.events:
		t.Errorf("a refused request led to %q", e)
	default:
	}
}

func TestTheLogLevelCanBeReadAndSet(t *testing.T) {
	p := open(t, nil)
	p.want("POST", "/logging", 200, "active loggers:\n  outrigger: info\n")
	for _, l := range levels {
		p.want("POST", "/logging?level="+l.name, 200, "active loggers:\n  outrigger: "+l.name+"\n")
		if p.level.Level() != l.at {
			t.Errorf("%s: the level is %v", l.name, p.level.Level())
		}
	}
	p.want("POST", "/logging?outrigger=debug", 200, "active loggers:\n  outrigger: debug\n")
	p.want("POST", "/logging?paths=outrigger:error", 200, "active loggers:\n  outrigger: error\n")
	for _, q := range []string{"level=loud", "http=debug", "paths=http:debug", "paths=x", "level=debug&outrigger=info"} {
		if resp, body := p.do("POST", "/logging?"+q); resp.StatusCode != 400 || !strings.HasPrefix(body, "error: ") || !strings.Contains(body, "levels: trace debug info") {
			t.Errorf("%s: %d %q", q, resp.StatusCode, body)
		}
	}
	if p.level.Level() != slog.LevelError {
		t.Errorf("a refused request set the level to %v", p.level.Level())
	}
}

func TestAnUnknownPathListsTheCommands(t *testing.T) {
	p := open(t, nil)
	resp, body := p.do("GET", "/nosuch")
	if resp.StatusCode != 404 || !strings.HasPrefix(body, "invalid path. admin commands are:\n  /: ") || !strings.Contains(body, "  /quitquitquit (POST): ") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	_, help := p.do("GET", "/help")
	_, home := p.do("GET", "/")
	for path := range p.s.commands {
		if !strings.Contains(help, "  "+path) || !strings.Contains(home, path) {
			t.Errorf("%s is missing in the help", path)
		}
	}
	if strings.Contains(home, "<form") || strings.Contains(home, "<script") {
		t.Error("the home page can act")
	}
}

func TestCommandsWithoutAnOwnerDoNotExist(t *testing.T) {
	p := open(t, func(c *Config) {
		c.Dump, c.Level, c.Drain, c.Quit, c.ReopenLogs, c.Hystrix = nil, nil, nil, nil, nil, nil
	})
	for _, path := range []string{"/config_dump", "/logging", "/drain_listeners", "/quitquitquit", "/reopen_logs", "/hystrix.stream"} {
		if resp, _ := p.do("POST", path); resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

func TestTapNeedsItsFlag(t *testing.T) {
	p := open(t, nil)
	if resp, body := p.do("POST", "/tap"); resp.StatusCode != 403 || !strings.Contains(body, "--admin-tap") {
		t.Errorf("without the flag: %d %q", resp.StatusCode, body)
	}
	p = open(t, func(c *Config) { c.AllowTap = true })
	if resp, _ := p.do("POST", "/tap"); resp.StatusCode != 404 {
		t.Errorf("with the flag and no tap: %d", resp.StatusCode)
	}
	p = open(t, func(c *Config) {
		c.AllowTap, c.Tap = true, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "tapped") })
	})
	p.want("POST", "/tap", 200, "tapped")
}

func TestProfilingIsOffUnlessAskedFor(t *testing.T) {
	p := open(t, nil)
	for _, c := range []struct{ method, path string }{
		{"POST", "/cpuprofiler?enable=y"}, {"POST", "/heapprofiler"}, {"GET", "/heap_dump"},
	} {
		if resp, _ := p.do(c.method, c.path); resp.StatusCode != 403 {
			t.Errorf("%s: %d", c.path, resp.StatusCode)
		}
	}
	if resp, _ := p.do("GET", "/debug/pprof/"); resp.StatusCode != 404 {
		t.Errorf("Go's own profiler answers %d", resp.StatusCode)
	}
	p = open(t, func(c *Config) { c.Profiling = true })
	p.want("POST", "/cpuprofiler?enable=n", 409, "no profile was started\n")
	p.want("POST", "/cpuprofiler?enable=x", 400, "?enable=<y|n>\n")
	p.want("POST", "/cpuprofiler?enable=y", 200, "OK\n")
	p.want("POST", "/cpuprofiler?enable=y", 409, "a profile is running\n")
	gzip := "\x1f\x8b"
	if resp, body := p.do("POST", "/cpuprofiler?enable=n"); resp.StatusCode != 200 || !strings.HasPrefix(body, gzip) {
		t.Errorf("CPU profile: %d, %d bytes", resp.StatusCode, len(body))
	}
	if resp, body := p.do("GET", "/heap_dump"); resp.StatusCode != 200 || !strings.HasPrefix(body, gzip) {
		t.Errorf("heap profile: %d, %d bytes", resp.StatusCode, len(body))
	}
	if resp, body := p.do("GET", "/contention"); resp.StatusCode != 200 || !strings.Contains(body, "mutex") {
		t.Errorf("contention: %d %q", resp.StatusCode, body)
	}
}
