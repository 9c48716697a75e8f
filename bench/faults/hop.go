// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
)

// hop is a proxy under test.
type hop struct {
	*process
	port, admin int
	folder      string   // of its configuration
	config      string   // its bootstrap
	version     int      // of its listener
	former      *process // whose successor it is, until that has ended
	epoch       int      // processes that were before this one
}

// zone is what the configuration lists of endpoints.
type zone struct {
	Name  string
	Ports []int
}

// proxyKinds are the proxies, ours first.
func proxyKinds() []string { return []string{"sidecar", "envoy"} }

// drainSeconds is what both proxies have to let connections end, parentSeconds when the
// predecessor of an upgrade has to be gone.
const drainSeconds, parentSeconds = "2", "4"

// command is the argument vector of a proxy, or of its successor in place.
func (r *rig) command(h *hop, config string) []string {
	if r.kind == "envoy" {
		return []string{r.programs.envoy, "-c", config, "--concurrency", "1", "--base-id", strconv.Itoa(h.port), "--restart-epoch", strconv.Itoa(h.epoch),
			"--drain-time-s", drainSeconds, "--parent-shutdown-time-s", parentSeconds, "-l", "error"}
	}
	return []string{r.programs.sidecar, "-c", config, "--concurrency", "1", "--data", filepath.Join(h.folder, "data"), "--upgrade",
		"--drain-time-s", drainSeconds, "--parent-shutdown-time-s", parentSeconds, "-l", "error"}
}

// upgrade starts a successor of the first proxy and waits until the proxy before it has
// ended.
func (r *rig) upgrade(ctx context.Context) error {
	h := r.hops[0]
	before := h.process
	h.epoch++
	next, err := r.start(filepath.Base(h.folder), r.command(h, h.config)...)
	if err != nil {
		return err
	}
	h.process, h.former = next, before
	limit, cancel := context.WithTimeout(ctx, upgradeLimit)
	defer cancel()
	for {
		n, err := r.stat(limit, h, "server.hot_restart_epoch")
		if err == nil && n == int64(h.epoch) {
			break
		}
		select {
		case <-next.done:
			return next.failure(errors.New("the successor has ended"))
		default:
		}
		if err := wait(limit, readyPoll); err != nil {
			return next.failure(fmt.Errorf("the successor does not serve: %w", err))
		}
	}
	select {
	case <-before.done:
		h.former = nil
		return nil
	case <-limit.Done():
		return before.failure(errors.New("has not ended behind its successor"))
	}
}

// startChain starts so many proxies, each of which calls the next, and the last one the
// instances.
func (r *rig) startChain(ctx context.Context, n int) error {
	var list []zone
	for i, m := range r.instances {
		if i%perZone == 0 {
			list = append(list, zone{Name: string(rune('a' + i/perZone))})
		}
		z := &list[len(list)-1]
		z.Ports = append(z.Ports, m.behind)
	}
	for i := range n {
		h, err := r.newHop(fmt.Sprintf("%s-%d", r.kind, n-i))
		if err != nil {
			return err
		}
		if err := r.startHop(ctx, h, list); err != nil {
			return err
		}
		r.hops = append([]*hop{h}, r.hops...)
		list = []zone{{Name: "a", Ports: []int{h.port}}}
	}
	return nil
}

func (r *rig) newHop(name string) (*hop, error) {
	ports, err := freeport.Find(2)
	if err != nil {
		return nil, err
	}
	h := &hop{port: ports[0], admin: ports[1], folder: filepath.Join(r.dir, name)}
	return h, os.Mkdir(h.folder, 0o700)
}

func (r *rig) startHop(ctx context.Context, h *hop, list []zone) (err error) {
	if err := h.writeListeners(); err != nil {
		return err
	}
	config := filepath.Join(h.folder, "bootstrap.json")
	h.config = config
	data := map[string]any{"Admin": h.admin, "Listeners": h.listeners(), "Zones": list, "Resolver": 0}
	if r.names != nil {
		data["Resolver"] = r.names.Addr().Port()
	}
	err = render("bootstrap.json.tmpl", config, data)
	if err != nil {
		return err
	}
	if h.process, err = r.start(filepath.Base(h.folder), r.command(h, config)...); err != nil {
		return err
	}
	if err := r.await(ctx, h.process, "http://"+address(h.port)+"/"); err != nil {
		h.kill()
		return err
	}
	return nil
}

func (h *hop) listeners() string { return filepath.Join(h.folder, "listeners.json") }

// writeListeners replaces the file of listeners as a whole, which is what both proxies
// watch for.
func (h *hop) writeListeners() error {
	h.version++
	next := filepath.Join(h.folder, "listeners.next")
	if err := render("listeners.json.tmpl", next, map[string]any{"Port": h.port, "Version": h.version}); err != nil {
		return err
	}
	return os.Rename(next, h.listeners())
}

// reload changes the first proxy's listener and waits until the proxy has taken it.
func (r *rig) reload(ctx context.Context) error {
	h := r.hops[0]
	counter := "listener_manager.lds.update_success"
	if r.kind == "sidecar" {
		counter = "outrigger.config_version_adopted" // by its workers
	}
	before, err := r.stat(ctx, h, counter)
	if err != nil {
		return err
	}
	if err := h.writeListeners(); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, updateLimit)
	defer cancel()
	for {
		if now, err := r.stat(limit, h, counter); err != nil || now > before {
			return err
		}
		if err := wait(limit, readyPoll); err != nil {
			return fmt.Errorf("%s has not taken version %d of the listener: %w", r.kind, h.version, err)
		}
	}
}
