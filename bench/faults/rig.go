// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
	"github.com/outrigger-mesh/outrigger/internal/launch"
	"github.com/outrigger-mesh/outrigger/pkg/dns/dnstest"
)

//go:embed configs
var configs embed.FS

const (
	zones        = 2
	perZone      = 2
	readyLimit   = 30 * time.Second
	readyPoll    = 5 * time.Millisecond
	updateLimit  = 10 * time.Second
	upgradeLimit = 30 * time.Second
)

// programs are what a run starts.
type programs struct {
	self, sidecar, controlplane, envoy, toxiproxy string
}

// rig is one proxy with its instances, all new: what one fault does to it is not seen
// by the next.
type rig struct {
	dir       string
	launcher  *launch.Launcher
	programs  *programs
	client    *http.Client
	kind      string
	instances []*member
	hops      []*hop // the proxies, the first of which clients call
	toxic     int    // toxiproxy's port; 0: not started
	toxiproxy *process

	names *dnstest.Server // by which the proxy finds instances; nil: by their addresses

	plane               *process // the control plane; nil where the proxy has files
	planeHTTP, planeXDS int
}

// member is an instance and where it is.
type member struct {
	*process
	port, control int
	behind        int // the port that the proxy calls; its own but for one behind toxiproxy
}

// process is something that was started.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it was reaped
}

func (r *rig) start(name string, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(r.dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = r.dir, log, log
	err = r.launcher.Start(p.cmd, syscall.SIGKILL)
	_ = log.Close() // the child has its own
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends when the process does
		_ = p.cmd.Wait() // how it ended is seen in what is lost, or in its log
		close(p.done)
	}()
	return p, nil
}

func (p *process) signal(s syscall.Signal) error { return syscall.Kill(p.cmd.Process.Pid, s) }

// kill ends it without notice and waits for that.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // gone already is as well
	<-p.done
}

// failure says what a process last wrote.
func (p *process) failure(err error) error {
	text, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Errorf("%s: %w; the end of its log:\n%s", p.name, err, strings.Join(lines[max(0, len(lines)-10):], "\n"))
}

// newRig starts instances and the proxy in front of them and waits until all answer.
func newRig(ctx context.Context, dir, kind string, programs *programs, f *fault) (r *rig, err error) {
	r = &rig{dir: dir, kind: kind, programs: programs, launcher: launch.New(), client: &http.Client{Timeout: 5 * time.Second}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	ports, err := freeport.Find(2*zones*perZone + 4)
	if err != nil {
		return r, err
	}
	r.planeHTTP, r.planeXDS = ports[0], ports[1]
	for i := range zones * perZone {
		m := &member{port: ports[4+2*i], control: ports[5+2*i]}
		m.behind = m.port
		r.instances = append(r.instances, m)
		if err := r.startInstance(ctx, i); err != nil {
			return r, err
		}
	}
	if f.toxic {
		r.toxic = ports[2]
		if err := r.startToxiproxy(ctx, ports[3]); err != nil {
			return r, err
		}
	}
	if f.named {
		if err := r.startNames("127.0.0.1:0"); err != nil {
			return r, err
		}
	}
	if f.mesh {
		return r, r.startMesh(ctx)
	}
	return r, r.startChain(ctx, max(f.hops, 1))
}

// startInstance starts instance i, for the first time or again.
func (r *rig) startInstance(ctx context.Context, i int) (err error) {
	m := r.instances[i]
	m.process, err = r.start(fmt.Sprintf("instance-%d", i), r.programs.self, "instance",
		"--address", address(m.port), "--control", address(m.control))
	if err != nil {
		return err
	}
	return r.await(ctx, m.process, "http://"+address(m.port)+"/")
}

// startToxiproxy puts the first instance behind a toxiproxy that does nothing yet.
func (r *rig) startToxiproxy(ctx context.Context, front int) (err error) {
	r.toxiproxy, err = r.start("toxiproxy", r.programs.toxiproxy, "-host", "127.0.0.1", "-port", strconv.Itoa(r.toxic))
	if err != nil {
		return err
	}
	if err := r.await(ctx, r.toxiproxy, "http://"+address(r.toxic)+"/version"); err != nil {
		return err
	}
	m := r.instances[0]
	m.behind = front
	return r.toxics(ctx, http.MethodPost, "/proxies", fmt.Sprintf(`{"name":"first","listen":%q,"upstream":%q}`, address(front), address(m.port)))
}

// toxics asks toxiproxy's API.
func (r *rig) toxics(ctx context.Context, method, path, body string) error {
	_, err := r.ask(ctx, method, "http://"+address(r.toxic)+path, body)
	return err
}

// stat reads one counter of a proxy from its admin port.
func (r *rig) stat(ctx context.Context, h *hop, name string) (int64, error) {
	text, err := r.ask(ctx, http.MethodGet, "http://"+address(h.admin)+"/stats?filter="+url.QueryEscape("^"+regexp.QuoteMeta(name)+"$"), "")
	if err != nil {
		return 0, err
	}
	_, value, ok := strings.Cut(strings.TrimSpace(text), ": ")
	if !ok {
		return 0, fmt.Errorf("%s has no stat %s: it answers %q", r.kind, name, text)
	}
	return strconv.ParseInt(value, 10, 64)
}

// tell makes an instance fail: so many percent of 500, and such a delay of all.
func (r *rig) tell(ctx context.Context, i, percent int, latency time.Duration) error {
	_, err := r.ask(ctx, http.MethodPut, fmt.Sprintf("http://%s/fail?errors=%d&latency=%s", address(r.instances[i].control), percent, latency), "")
	return err
}

func (r *rig) ask(ctx context.Context, method, url, body string) (string, error) {
	return r.askHost(ctx, method, url, "", body)
}

// askHost is ask with a host that is not the URL's, where one is given.
func (r *rig) askHost(ctx context.Context, method, url, host, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Host = host
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return "", err
	}
	if resp.StatusCode >= 300 {
		return "", fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return string(text), nil
}

// await waits until a process answers 200.
func (r *rig) await(ctx context.Context, p *process, url string) error {
	return r.awaitHost(ctx, p, url, "")
}

func (r *rig) awaitHost(ctx context.Context, p *process, url, host string) error {
	limit, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		_, err := r.askHost(limit, http.MethodGet, url, host, "")
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.failure(errors.New("ended by itself"))
		default:
		}
		if wait(limit, readyPoll) != nil {
			return p.failure(fmt.Errorf("does not answer: %w", err))
		}
	}
}

func (r *rig) close() {
	for _, h := range r.hops {
		h.kill()
		if h.former != nil {
			h.former.kill()
		}
	}
	for _, m := range r.instances {
		if m.process != nil {
			m.kill()
		}
	}
	for _, p := range []*process{r.toxiproxy, r.plane} {
		if p != nil {
			p.kill()
		}
	}
	if r.names != nil {
		r.names.Close()
	}
	r.launcher.Close()
}

// startNames starts a DNS server of which each instance has a name, for the first time or
// again.
func (r *rig) startNames(addr string) error {
	s, err := dnstest.Start(addr)
	if err != nil {
		return fmt.Errorf("DNS server: %w", err)
	}
	for _, m := range r.instances {
		s.Set(instanceName(m.behind)+".", dnstest.Addresses("127.0.0.1"))
	}
	r.names = s
	return nil
}

func instanceName(port int) string { return fmt.Sprintf("instance-%d.faults.test", port) }

func render(name, file string, data any) error {
	t, err := template.ParseFS(configs, "configs/"+name)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, data); err != nil {
		return err
	}
	return os.WriteFile(file, text.Bytes(), 0o644)
}

// wait returns early, with an error, where the context ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
