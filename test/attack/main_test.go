// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
	"github.com/outrigger-mesh/outrigger/internal/programs"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

var sidecarBinary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if addr := os.Getenv(asAttacker); addr != "" {
		return attack(addr)
	}
	// Tests that run in parallel mostly wait. On the command line -parallel overrides it.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := watchSources(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "attack")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	sidecarBinary = filepath.Join(dir, "sidecar")
	if err := programs.Build(context.Background(), dir, "cmd/sidecar"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// watchSources looks at the folders that the binary is built of, so that go test
// takes no result from its cache that another binary gave.
func watchSources() error {
	for _, dir := range []string{"../../pkg", "../../cmd"} {
		if err := filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// target is what a sidecar is started with.
type target struct {
	Upstream string // HOST:PORT of the hostile or recording backend
	Mirror   string // HOST:PORT; "": none
	Manager  string // more fields of the connection manager, as YAML flow
	Action   string // more fields of the route action, as YAML flow
	Cluster  string // more fields of the cluster, as YAML flow
	Connect  string // fields of the upgrade_config of CONNECT, as YAML flow; "": no route for it
	Secure   bool   // clients come over TLS
	Listener string // more fields of the listener, as YAML flow
	Before   string // a network filter before the connection manager, as YAML flow
	Args     []string
	Launch   func(*exec.Cmd) error // in place of its Start, or nil
	Log      string                // filled in
	Port     int                   // filled in
}

var bootstrap = template.Must(template.New("bootstrap").Funcs(template.FuncMap{
	"host": func(a string) string { h, _, _ := net.SplitHostPort(a); return h },
	"port": func(a string) string { _, p, _ := net.SplitHostPort(a); return p },
	"tls":  downstreamTLS,
}).Parse(`
static_resources:
  clusters:
  - {name: c, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "{{host .Upstream}}", port_value: {{port .Upstream}}}}}}]}]}{{with .Cluster}}, {{.}}{{end}}}
{{- if .Mirror}}
  - {name: m, type: STATIC, connect_timeout: 1s, load_assignment: {cluster_name: m, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "{{host .Mirror}}", port_value: {{port .Mirror}}}}}}]}]}}
{{- end}}
  listeners:
  - name: main
    address: {socket_address: {address: 127.0.0.1, port_value: {{.Port}}}}
{{- with .Listener}}
    {{.}}
{{- end}}
    filter_chains:
    - filters:
{{- with .Before}}
      - {{.}}
{{- end}}
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          {{.Manager}}
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {{.Log}}
              log_format: {text_format_source: {inline_string: "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %UPSTREAM_HOST% [%REQ(X-CANARY)%]\n"}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
{{- if .Connect}}
              - {match: {connect_matcher: {}}, route: {cluster: c, upgrade_configs: [{upgrade_type: CONNECT, {{.Connect}}}]}}
{{- end}}
              - {match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: "{{printf "%0512d" 0}}"}}}
              - {match: {prefix: /}, route: {cluster: c{{with .Action}}, {{.}}{{end}}}}
{{- if .Secure}}
      {{tls}}
{{- end}}
`))

// proxy is a running sidecar.
type proxy struct {
	t      *testing.T
	addr   string
	admin  string
	log    string
	pid    int
	ended  chan struct{} // the process has ended
	errors *lockedBuffer
}

// start runs a sidecar and stops it with the test.
func start(t *testing.T, g target) *proxy {
	t.Helper()
	dir := t.TempDir()
	g.Log, g.Port = filepath.Join(dir, "access.log"), freePort(t)
	var text bytes.Buffer
	if err := bootstrap.Execute(&text, g); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &proxy{
		t: t, addr: "127.0.0.1:" + strconv.Itoa(g.Port), admin: "127.0.0.1:" + strconv.Itoa(freePort(t)),
		log: g.Log, errors: &lockedBuffer{},
	}
	cmd := exec.Command(sidecarBinary, "-c", file, "--admin", p.admin, "--data", filepath.Join(dir, "data"), "--concurrency", "1")
	cmd.Args = append(cmd.Args, g.Args...)
	cmd.Stdout, cmd.Stderr = p.errors, p.errors
	if g.Launch == nil {
		g.Launch = (*exec.Cmd).Start
	}
	if err := g.Launch(cmd); err != nil {
		t.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	ended := make(chan struct{})
	p.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("sidecar said:\n%s", p.errors.String())
		}
	})
	eventually(t, "the sidecar is ready", func() bool {
		select {
		case <-ended:
			t.Fatalf("the sidecar ended:\n%s", p.errors.String())
		default:
		}
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	})
	return p
}

// dial connects to the listener; the connection ends with the test.
func (p *proxy) dial() net.Conn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// last is a request that the proxy answers by itself, and then ends the connection.
// Behind others it tells that all of them are done.
const last = "GET /direct HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"

// say writes raw bytes on a connection of its own and returns all that comes back
// until the proxy ends it. What is sent must bring that about.
func (p *proxy) say(raw string) string {
	p.t.Helper()
	c := p.dial()
	_, _ = io.WriteString(c, raw) // the proxy may refuse before it has read all
	all, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Errorf("%.100q: the connection was not ended within %v; it brought %.200q", raw, patience, all)
	}
	_ = c.Close()
	return string(all)
}

// memory is the resident set in bytes.
func (p *proxy) memory() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		p.t.Fatal("the sidecar is gone: ", err)
	}
	n, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return n * int64(os.Getpagesize())
}

// descriptors is the number of open files.
func (p *proxy) descriptors() int {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		p.t.Fatal("the sidecar is gone: ", err)
	}
	return len(list)
}

// stat reads one counter or gauge.
func (p *proxy) stat(name string) int64 {
	p.t.Helper()
	resp, err := http.Get("http://" + p.admin + "/stats")
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n
		}
	}
	p.t.Fatalf("no statistic %q", name)
	return 0
}

// logged waits for n access log lines and returns all that are there.
func (p *proxy) logged(n int) []string {
	p.t.Helper()
	var lines []string
	eventually(p.t, fmt.Sprintf("%d access log lines", n), func() bool {
		b, _ := os.ReadFile(p.log)
		lines = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		if len(b) == 0 {
			lines = nil
		}
		return len(lines) >= n
	})
	return lines
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(limit) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// hostile serves each connection with f, as a backend that keeps no rule.
func hostile(t *testing.T, f func(n int, c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				f(n, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

func itoa(n int) string { return strconv.Itoa(n) }
