// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// ControlPlane is a running `controlplane serve`.
type ControlPlane struct {
	*Process
	HTTP, XDS string // addresses
	Data      string // folder

	args []string
}

// StartControlPlane starts one with its folder in dir and waits until it is
// ready. Further flags may be given.
func StartControlPlane(t testing.TB, dir string, flags ...string) *ControlPlane {
	t.Helper()
	c := &ControlPlane{HTTP: FreeAddress(t), XDS: FreeAddress(t), Data: filepath.Join(dir, "controlplane"), args: flags}
	c.start(t)
	c.awaitReady()
	return c
}

func (c *ControlPlane) start(t testing.TB) {
	t.Helper()
	argv := append([]string{Program("controlplane"), "serve", "--data", c.Data, "--http", c.HTTP, "--xds", c.XDS}, c.args...)
	c.Process = Start(t, "controlplane", c.Data+".log", nil, argv...)
}

func (c *ControlPlane) awaitReady() {
	c.t.Helper()
	c.Await(startLimit, "the control plane is ready", func() error {
		_, err := Get(c.URL("/healthz/ready"))
		return err
	})
}

// Restart starts it again on the same ports and folder, after it has ended.
func (c *ControlPlane) Restart() {
	c.t.Helper()
	if c.Alive() {
		c.t.Fatal("the control plane still runs")
	}
	c.start(c.t)
	c.awaitReady()
}

// URL is one of its REST API.
func (c *ControlPlane) URL(path string) string { return "http://" + c.HTTP + path }

// CLI runs a client command against it.
func (c *ControlPlane) CLI(stdin string, args ...string) Finished {
	c.t.Helper()
	return Run(c.t, stdin, append([]string{Program("controlplane"), "--server", c.URL("")}, args...)...)
}

// Sidecar is a running sidecar.
type Sidecar struct {
	*Process
	ID                       string
	Inbound, Outbound, Admin string // addresses
	Data                     string

	argv, env []string
	sockets   []*os.File // descriptors 3 and up
}

// SidecarOptions say what a sidecar is beside.
type SidecarOptions struct {
	Service, ID string
	App         string // address; empty for a sidecar that only calls others
	XDS         string // of the control plane
	Flags       []string
	Files       int // limit on open files, soft and hard; 0 leaves the test's own
}

// StartSidecar starts one with its folder in dir, without waiting for it.
func StartSidecar(t testing.TB, dir string, o SidecarOptions) *Sidecar {
	t.Helper()
	s := &Sidecar{
		ID: o.ID, Inbound: FreeAddress(t), Outbound: FreeAddress(t), Admin: FreeAddress(t),
		Data: filepath.Join(dir, o.ID+".sidecar"),
	}
	s.argv = []string{
		Program("sidecar"), "--service", o.Service, "--id", o.ID, "--controlplane", o.XDS,
		"--inbound", s.Inbound, "--outbound", s.Outbound, "--admin", s.Admin, "--data", s.Data, "--concurrency", "1",
	}
	if o.App != "" {
		s.argv = append(s.argv, "--app", o.App)
	}
	s.argv = limited(append(s.argv, o.Flags...), o.Files)
	s.start(t)
	return s
}

func (s *Sidecar) start(t testing.TB) {
	t.Helper()
	s.Process = startWith(t, "sidecar "+s.ID, s.Data+".log", s.env, s.sockets, s.argv...)
}

// Node is the node id in xDS.
func (s *Sidecar) Node() string {
	for i, a := range s.argv {
		if a == "--service" {
			return s.argv[i+1] + "~" + s.ID
		}
	}
	return s.ID
}

// Restart starts it again on the same ports and folder, after it has ended,
// without waiting until it is ready.
func (s *Sidecar) Restart() {
	s.t.Helper()
	if s.Alive() {
		s.t.Fatalf("%s still runs", s.Name)
	}
	s.start(s.t)
}

// Ready asks the admin port.
func (s *Sidecar) Ready() error {
	_, err := Get("http://" + s.Admin + "/ready")
	return err
}

// Stats are the numbers of the admin port, by Envoy's names.
func (s *Sidecar) Stats() (map[string]int, error) {
	body, err := Get("http://" + s.Admin + "/stats")
	if err != nil {
		return nil, err
	}
	stats := map[string]int{}
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.Atoi(value); err == nil {
			stats[name] = n
		}
	}
	return stats, nil
}

// AwaitStat waits until a number has a value that is wanted, and returns it.
func (s *Sidecar) AwaitStat(name string, wanted func(int) bool) int {
	s.t.Helper()
	var got int
	s.Await(startLimit, "the number "+name, func() error {
		stats, err := s.Stats()
		if err != nil {
			return err
		}
		var there bool
		if got, there = stats[name]; !there || !wanted(got) {
			return fmt.Errorf("it is %d (there: %t)", got, there)
		}
		return nil
	})
	return got
}

// AwaitIdle waits until no request is under way: what stays was leaked.
func (s *Sidecar) AwaitIdle() {
	s.t.Helper()
	s.Await(startLimit, "no request under way", func() error {
		stats, err := s.Stats()
		for name, n := range stats {
			if strings.HasSuffix(name, "_rq_active") && n != 0 {
				return fmt.Errorf("%s is %d", name, n)
			}
		}
		return err
	})
}

// AwaitReady waits for the first complete configuration.
func (s *Sidecar) AwaitReady() {
	s.t.Helper()
	s.Await(startLimit, "the sidecar is ready", s.Ready)
}

// AwaitLastGood waits until the sidecar has its configuration on disk, which it
// writes a second after it has come.
func (s *Sidecar) AwaitLastGood() {
	s.t.Helper()
	s.Await(startLimit, "the last good configuration on disk", func() error {
		_, err := os.Stat(filepath.Join(s.Data, "xds-last-good"))
		return err
	})
}

// Instance is one application with its sidecar.
type Instance struct {
	App     *App
	Sidecar *Sidecar
}

// Mesh is a control plane with sidecars.
type Mesh struct {
	Dir          string
	ControlPlane *ControlPlane

	t testing.TB
}

// New starts a control plane in a folder of the test.
func New(t testing.TB, flags ...string) *Mesh {
	t.Helper()
	dir := t.TempDir()
	return &Mesh{Dir: dir, ControlPlane: StartControlPlane(t, dir, flags...), t: t}
}

// Caller starts a sidecar without an application and waits until it is ready:
// the tests' own client stands for its application.
func (m *Mesh) Caller(id string, flags ...string) *Sidecar {
	m.t.Helper()
	s := StartSidecar(m.t, m.Dir, SidecarOptions{Service: "web", ID: id, XDS: m.ControlPlane.XDS, Flags: flags})
	s.AwaitReady()
	return s
}

// Instance starts an application and its sidecar, and waits until it is
// registered as healthy.
func (m *Mesh) Instance(service, id string, flags ...string) *Instance {
	m.t.Helper()
	x := &Instance{App: StartApp(m.t, m.Dir, id)}
	x.Sidecar = StartSidecar(m.t, m.Dir, SidecarOptions{Service: service, ID: id, App: x.App.Address, XDS: m.ControlPlane.XDS, Flags: flags})
	x.Sidecar.AwaitReady()
	m.AwaitInstance(service, id, true)
	return x
}

// AwaitInstance waits until an instance is registered as healthy, or gone.
func (m *Mesh) AwaitInstance(service, id string, there bool) {
	m.t.Helper()
	Await(m.t, startLimit, fmt.Sprintf("instance %s/%s there: %t", service, id, there), func() error {
		list, err := m.ControlPlane.Instances(service)
		if err != nil {
			return err
		}
		for _, i := range list {
			if i.ID != id {
				continue
			}
			if there && i.Health == "healthy" {
				return nil
			}
			return fmt.Errorf("it is %s", i.Health)
		}
		if there {
			return errors.New("not registered")
		}
		return nil
	})
}

// AwaitAnswers waits until requests for host through a sidecar were answered by
// each of the instances.
func (m *Mesh) AwaitAnswers(s *Sidecar, host string, instances ...string) {
	m.t.Helper()
	missing := map[string]bool{}
	for _, i := range instances {
		missing[i] = true
	}
	s.Await(startLimit, "answers of "+strings.Join(instances, ", "), func() error {
		a, err := Call(s.Outbound, host, "/")
		if err != nil {
			return err
		}
		if a.Status != 200 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		delete(missing, a.Header.Get(InstanceHeader))
		if len(missing) > 0 {
			return fmt.Errorf("none of %v yet", missing)
		}
		return nil
	})
}
