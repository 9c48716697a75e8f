// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/event"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// followed are the events that a command has printed, a line of JSON each.
func followed(text string) (list []reported, err error) {
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			return nil, fmt.Errorf("the last line has no end: %q", line)
		}
		var e reported
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Kind == "" || e.Time.IsZero() {
			return nil, fmt.Errorf("%q is no event: %w", line, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// follower is a command that follows events.
type follower struct {
	*mesh.Process
	t *testing.T
}

func follow(t *testing.T, dir, name string, argv ...string) *follower {
	t.Helper()
	return &follower{mesh.Start(t, name, filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".out"), nil, append(argv, "--follow", "-o", "json")...), t}
}

// awaits waits until an event has been printed.
func (f *follower) awaits(what string, is func(*reported) bool) {
	f.t.Helper()
	f.Await(routeLimit, what+" by "+f.Name, func() error {
		list, err := followed(f.Output())
		if err != nil {
			return err
		}
		for i := range list {
			if is(&list[i]) {
				return nil
			}
		}
		return fmt.Errorf("not among %d events", len(list))
	})
}

// ends sends Ctrl-C: that is how it is meant to end, so all was well, and nothing but
// events has been printed.
func (f *follower) ends() {
	f.t.Helper()
	f.Signal(syscall.SIGINT)
	if code := f.Wait(routeLimit); code != 0 {
		f.t.Errorf("%s ended with %d after Ctrl-C:\n%s", f.Name, code, f.Output())
	}
	if _, err := followed(f.Output()); err != nil {
		f.t.Errorf("%s: %v", f.Name, err)
	}
}

// loses waits for the end that the loss of the server is: neither command connects anew.
func (f *follower) loses(code int, words string) {
	f.t.Helper()
	if got := f.Wait(routeLimit); got != code || !strings.Contains(f.Output(), words) {
		f.t.Errorf("%s ended with %d, want %d and %q:\n%s", f.Name, got, code, words, f.Output())
	}
}

func TestFollowedEventsAreLinesOfJSONUntilASignal(t *testing.T) {
	t.Parallel()
	m := mesh.New(t)
	caller := m.Caller("web-1")
	dir := t.TempDir()
	sidecar := func(name string) *follower {
		return follow(t, dir, name, mesh.Program("sidecar"), "events", "--admin", caller.Admin)
	}
	controlplane := func(name string) *follower {
		return follow(t, dir, name, mesh.Program("controlplane"), "events", "--server", m.ControlPlane.URL(""))
	}
	drained := func(e *reported) bool { return e.Kind == event.KindDrain && e.Type == event.Began }
	changed := func(e *reported) bool { return e.Kind == "TrafficPolicy" && e.Name == "orders" }
	here, other, there, beside := sidecar("sidecar 1"), sidecar("sidecar 2"), controlplane("control plane 1"), controlplane("control plane 2")
	m.ControlPlane.PutYAML("TrafficPolicy", "orders", ejectingPolicy)
	there.awaits("the change of an object", changed)
	beside.awaits("the change of an object", changed)
	there.ends()

	m.ControlPlane.Kill()
	beside.loses(3, "the control plane has ended the stream")
	m.ControlPlane.Restart()
	after := controlplane("control plane 3")
	m.ControlPlane.PutYAML("TrafficPolicy", "orders", strings.Replace(ejectingPolicy, "maxEjectionPercent: 50", "maxEjectionPercent: 40", 1))
	after.awaits("the change of an object after a restart", changed)
	after.ends()

	resp, err := http.Post("http://"+caller.Admin+"/drain_listeners?graceful&skip_exit", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	here.awaits("the begin of a drain", drained)
	other.awaits("the begin of a drain", drained)
	here.ends()
	caller.Kill()
	other.loses(5, "the sidecar has ended the stream")
}

// events are those of a kind that a sidecar has.
func eventsOf(s *mesh.Sidecar, kind string) (list []event.Event, err error) {
	text, err := mesh.Get("http://" + s.Admin + "/events?kind=" + kind)
	if err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	return list, err
}

func TestARefusedResourceIsAnEventOnceForEachReason(t *testing.T) {
	t.Parallel()
	server := xdstest.StartRaw(t)
	send := func(version string, timeout time.Duration) {
		c := xdsCluster(t, "bad", "127.0.0.1:9")
		c.ConnectTimeout = durationpb.New(timeout)
		if timeout == 0 {
			c.ConnectTimeout, c.LbPolicy = durationpb.New(time.Second), clusterv3.Cluster_LbPolicy(99)
		}
		server.Set(resourcev3.ClusterType, version, named(t, "bad", c), named(t, version, xdsCluster(t, version, "127.0.0.1:9")))
	}
	server.Set(resourcev3.ListenerType, "v0")
	send("v1", -time.Second)
	s := mesh.StartDynamic(t, t.TempDir(), server.Addr, "GRPC")
	s.AwaitReady()
	refused := func(version string, want ...string) {
		t.Helper()
		s.Await(routeLimit, "the events of "+version, func() error {
			text, err := mesh.Get("http://" + s.Admin + "/clusters")
			if err == nil && !strings.Contains(text, version+"::") {
				err = errors.New("the good cluster beside the refused one is not there")
			}
			if err != nil {
				return err
			}
			list, err := eventsOf(s, event.KindNACK)
			if err != nil {
				return err
			}
			if len(list) != len(want) {
				return fmt.Errorf("%d events, want %d: %+v", len(list), len(want), list)
			}
			for i := range list {
				if e := &list[i]; e.Type != event.Refused || e.Name != "cluster bad" || !strings.Contains(e.Message, want[i]) {
					return fmt.Errorf("%+v, want %q", e, want[i])
				}
			}
			return nil
		})
	}
	refused("v1", "connect_timeout")
	send("v2", -time.Second)
	refused("v2", "connect_timeout") // nothing new
	send("v3", 0)
	refused("v3", "connect_timeout", "lb_policy")
}

func TestAnUpgradeIsToldByBothProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "events.json")
	app := mesh.StartApp(t, dir, "app")
	s := mesh.StartStatic(t, dir, mesh.StaticOptions{Upstream: app.Address, Flags: []string{"--data", filepath.Join(dir, "data"), "--event-log", log}})
	// Who takes over and breaks.
	good, err := os.ReadFile(s.Bootstrap())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Bootstrap(), append(good, "\nnonsense: {}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mesh.Run(t, "", s.Successor()...); got.Code == 0 {
		t.Fatalf("%+v", got)
	}
	s.Await(routeLimit, "the upgrade that failed", func() error {
		list, err := eventsOf(s, event.KindUpgrade)
		if err != nil {
			return err
		}
		if len(list) == 0 || list[len(list)-1].Type != event.Failed {
			return fmt.Errorf("%+v", list)
		}
		e := &list[len(list)-1]
		if epoch, ok := e.Numbers.Get("epoch"); !ok || epoch != 0 || !strings.HasPrefix(e.Message, "this process serves on: ") || !strings.HasPrefix(e.Name, "pid ") {
			t.Errorf("%+v", e)
		}
		return nil
	})
	if err := os.WriteFile(s.Bootstrap(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	old, oldPID := s.Process, s.PID()
	s.Upgrade()
	if code := old.Wait(20 * time.Second); code != 0 {
		t.Errorf("the old process ended with %d", code)
	}
	list, err := eventsOf(s, event.KindUpgrade)
	if err != nil {
		t.Fatal(err)
	}
	// The process before is told of with each step.
	var types []string
	for i := range list {
		types = append(types, list[i].Type)
		if epoch, ok := list[i].Numbers.Get("epoch"); list[i].Name != fmt.Sprint("pid ", oldPID) || !ok || epoch != 1 {
			t.Errorf("of the successor: %+v", list[i])
		}
	}
	if fmt.Sprint(types) != fmt.Sprint([]string{event.Began, event.Ended}) {
		t.Errorf("of the successor: %v", types)
	}
	// The log of both is one file.
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	all, err := followed(string(text))
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]int{}
	for i := range all {
		if e := &all[i]; e.Kind == event.KindUpgrade {
			epoch, _ := e.Numbers.Get("epoch")
			told[fmt.Sprint(e.Type, " ", epoch, " ", e.Name == fmt.Sprint("pid ", s.PID()) || e.Name == fmt.Sprint("pid ", oldPID))]++
		}
	}
	for _, want := range []string{"began 0 true", "ended 0 true", "began 1 true", "ended 1 true"} {
		if told[want] != 1 {
			t.Errorf("%q %d times, want once: %v", want, told[want], told)
		}
	}
}
