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
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
	"github.com/outrigger-mesh/outrigger/internal/launch"
)

// startLimit bounds the start of one process on a busy machine.
const startLimit = 20 * time.Second

//go:embed mesh/*.yaml
var objects embed.FS

// member is one instance of a service with its sidecar.
type member struct {
	service, version, id string
	calls                string

	app, inbound, outbound, admin string // addresses
	appProcess, sidecarProcess    *process
}

// mesh is every process of the quickstart.
type mesh struct {
	dir      string
	launcher *launch.Launcher
	client   *http.Client

	controlPlane *process
	xds, http    string // addresses of the control plane
	members      []*member
	stopping     sync.Once
}

func newMesh(dir string) *mesh {
	return &mesh{
		dir: dir, launcher: launch.New(),
		client: &http.Client{Timeout: 5 * time.Second},
		members: []*member{
			{service: "payments", version: "v1", id: "payments-1"},
			{service: "payments", version: "v2", id: "payments-2"},
			{service: "orders", version: "v1", id: "orders-1", calls: "payments"},
			{service: "web", version: "v1", id: "web-1", calls: "orders"},
		},
	}
}

// of finds the instances of a service.
func (m *mesh) of(service string) []*member {
	var out []*member
	for _, x := range m.members {
		if x.service == service {
			out = append(out, x)
		}
	}
	return out
}

// entry is where the load goes: the inbound listener of web's sidecar.
func (m *mesh) entry() string { return "http://" + m.of("web")[0].inbound + "/" }

func (m *mesh) api(path string) string { return "http://" + m.http + path }

func (m *mesh) bin(name string) string { return filepath.Join(m.dir, "bin", name) }

func (m *mesh) logFile(name string) string { return filepath.Join(m.dir, name+".log") }

// dataDir is the control plane's.
func (m *mesh) dataDir() string { return filepath.Join(m.dir, "controlplane") }

// start starts everything and returns when a request passes all of it.
func (m *mesh) start(ctx context.Context) error {
	if err := m.startControlPlane(ctx); err != nil {
		return err
	}
	addresses, err := freeport.Addresses(4 * len(m.members))
	if err != nil {
		return err
	}
	for i, x := range m.members {
		a := addresses[4*i:]
		x.app, x.inbound, x.outbound, x.admin = a[0], a[1], a[2], a[3]
		if err := m.startMember(x); err != nil {
			return err
		}
	}
	for _, x := range m.members {
		if err := m.awaitMember(ctx, x); err != nil {
			return err
		}
	}
	for _, kind := range []string{"Telemetry/mesh", "TrafficPolicy/payments", "Tap/payments"} {
		if err := m.applyFile(ctx, kind); err != nil {
			return err
		}
	}
	return m.controlPlane.await(ctx, "no request passed web, orders and payments", startLimit, func() error {
		a, _, err := ask(ctx, m.client, m.entry(), nil)
		if err != nil {
			return err
		}
		return a.complete()
	})
}

// startControlPlane lets the system choose the ports and reads them from what
// `serve` prints.
func (m *mesh) startControlPlane(ctx context.Context) error {
	var out lines
	p, err := start(m.launcher, "controlplane", m.logFile("controlplane"), &out,
		m.bin("controlplane"), "serve", "--data", m.dataDir(), "--xds", "127.0.0.1:0", "--http", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.controlPlane = p
	return p.await(ctx, "printed no addresses", startLimit, func() error {
		m.xds, m.http = out.word("xds"), out.word("http")
		if m.xds == "" || m.http == "" {
			return errors.New("not printed yet")
		}
		return nil
	})
}

func (m *mesh) startMember(x *member) error {
	app, err := start(m.launcher, x.id, m.logFile(x.id), nil,
		m.bin("service"), "-listen", x.app, "-name", x.service, "-version", x.version, "-instance", x.id,
		"-calls", x.calls, "-sidecar", x.outbound, "-work", "3ms")
	if err != nil {
		return err
	}
	x.appProcess = app
	return m.startSidecar(x)
}

// startSidecar starts the sidecar of an instance; more are further flags.
func (m *mesh) startSidecar(x *member, more ...string) error {
	argv := append([]string{
		m.bin("sidecar"), "--service", x.service, "--id", x.id, "--version-label", x.version, "--app", x.app,
		"--controlplane", m.xds, "--inbound", x.inbound, "--outbound", x.outbound, "--admin", x.admin,
		"--health", "/healthz", "--data", filepath.Join(m.dir, x.id), "--concurrency", "1", "--drain-time-s", "3",
	}, more...)
	sidecar, err := start(m.launcher, "sidecar of "+x.id, m.logFile(x.id+"-sidecar"), nil, argv...)
	if err != nil {
		return err
	}
	x.sidecarProcess = sidecar
	return nil
}

func (m *mesh) awaitMember(ctx context.Context, x *member) error {
	err := x.appProcess.await(ctx, "not healthy", startLimit, func() error { return m.ok(ctx, "http://"+x.app+"/healthz") })
	if err != nil {
		return err
	}
	return x.sidecarProcess.await(ctx, "not ready", startLimit, func() error { return m.ok(ctx, "http://"+x.admin+"/ready") })
}

// ok asks for 200.
func (m *mesh) ok(ctx context.Context, url string) error {
	_, err := m.get(ctx, url)
	return err
}

// maxBody bounds what is read of any answer.
const maxBody = 8 << 20

func (m *mesh) get(ctx context.Context, url string) ([]byte, error) {
	return m.do(ctx, http.MethodGet, url, nil)
}

func (m *mesh) do(ctx context.Context, method, url string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/yaml")
	}
	response, err := m.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, response.Status, bytes.TrimSpace(data))
	}
	return data, nil
}

// applyFile puts one of the objects of the folder mesh/ through the API.
func (m *mesh) applyFile(ctx context.Context, key string) error {
	kind, _, _ := strings.Cut(key, "/")
	file := map[string]string{"Telemetry": "telemetry", "TrafficPolicy": "payments", "Tap": "tap"}[kind]
	body, err := objects.ReadFile("mesh/" + file + ".yaml")
	if err != nil {
		return err
	}
	return m.put(ctx, key, body)
}

func (m *mesh) put(ctx context.Context, key string, body []byte) error {
	_, err := m.do(ctx, http.MethodPut, m.api("/v1/objects/"+key), body)
	return err
}

// stopAll ends every process: each sidecar before its application, and the control
// plane last, so that everything can still be handed over.
func (m *mesh) stopAll() {
	m.stopping.Do(func() {
		m.client.CloseIdleConnections()
		var members sync.WaitGroup
		for _, x := range m.members {
			members.Go(func() {
				x.sidecarProcess.stop()
				x.appProcess.stop()
			})
		}
		members.Wait()
		m.controlPlane.stop()
		m.launcher.Close()
	})
}

// lines collects what a process prints.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len() < 64<<10 {
		l.text.Write(p)
	}
	return len(p), nil
}

// word is the second word of the complete line that begins with the first.
func (l *lines) word(first string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		f := strings.Fields(line)
		if strings.HasSuffix(line, "\n") && len(f) >= 2 && f[0] == first {
			return f[1]
		}
	}
	return ""
}

var _ io.Writer = (*lines)(nil)
