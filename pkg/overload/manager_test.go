// SPDX-License-Identifier: Apache-2.0

package overload

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func twoMonitors() *Manager {
	return New(resource.Overload{
		Monitors: []resource.OverloadMonitor{{Name: "a", Max: 100}, {Name: "b", Max: 1000}},
		Actions: []resource.OverloadAction{
			{Kind: resource.ActionStopAcceptingRequests, Triggers: []resource.OverloadTrigger{{Monitor: "a", From: 0.5, To: 1}, {Monitor: "b", From: 0.9, To: 0.9}}},
			{Kind: resource.ActionDisableKeepAlive, Triggers: []resource.OverloadTrigger{{Monitor: "a", From: 0.8, To: 0.8}}},
		},
	})
}

func TestActionsFollowThePressures(t *testing.T) {
	for _, c := range []struct {
		a, b                float64
		requests, keepAlive uint8
	}{
		{0, 0, 0, 0}, {50, 0, 0, 0}, {51, 0, 2, 0}, {75, 0, 50, 0}, {79.99, 0, 60, 0}, {80, 0, 60, 100}, {100, 0, 100, 100}, {5000, 0, 100, 100},
		{0, 899, 0, 0}, {0, 900, 100, 0}, {75, 900, 100, 0},
	} {
		m := twoMonitors()
		was := m.State()
		changed := m.Update(func(i int, _ *resource.OverloadMonitor) (float64, error) { return [...]float64{c.a, c.b}[i], nil })
		s := m.State()
		if r, k := s.Scale(resource.ActionStopAcceptingRequests), s.Scale(resource.ActionDisableKeepAlive); r != c.requests || k != c.keepAlive {
			t.Errorf("%v, %v: requests at %d, keep-alive at %d; want %d, %d", c.a, c.b, r, k, c.requests, c.keepAlive)
		}
		if changed != (s != was) {
			t.Errorf("%v, %v: changed is %v", c.a, c.b, changed)
		}
	}
}

func TestAMonitorThatCannotBeReadKeepsItsPressure(t *testing.T) {
	m := twoMonitors()
	read := func(v float64, err error) func(int, *resource.OverloadMonitor) (float64, error) {
		return func(int, *resource.OverloadMonitor) (float64, error) { return v, err }
	}
	m.Update(read(80, nil))
	for _, bad := range []struct {
		v   float64
		err error
	}{{0, errors.New("gone")}, {math.NaN(), nil}, {-1, nil}} {
		if m.Update(read(bad.v, bad.err)) || m.State().Scale(resource.ActionDisableKeepAlive) != 100 {
			t.Errorf("%v changed the state", bad)
		}
	}
	if r := m.Resources(); len(r) != 2 || r[0] != (Resource{"a", 80, 3}) {
		t.Errorf("resources are %+v", r)
	}
}

func TestAnActionIsTakenAsOftenAsItsScaleSays(t *testing.T) {
	for _, scale := range []uint8{0, 1, 50, 100} {
		s, hits := State(0).with(resource.ActionShrinkHeap, scale), 0
		for i := range uint64(1000) {
			if s.Hit(resource.ActionShrinkHeap, i) {
				hits++
			}
			if s.Hit(resource.ActionReduceTimeouts, i) {
				t.Fatal("another action was taken")
			}
		}
		if hits != 10*int(scale) {
			t.Errorf("%d hits of 1000 at %d", hits, scale)
		}
	}
}

func TestTimeoutsShrinkToWhatIsLeftOfThem(t *testing.T) {
	min := resource.ScaledTimeout{On: true, Min: 10 * time.Second}
	part := resource.ScaledTimeout{On: true, Percent: 20}
	for _, c := range []struct {
		s     resource.ScaledTimeout
		t     time.Duration
		scale uint8
		want  time.Duration
	}{
		{min, time.Minute, 0, time.Minute}, {min, time.Minute, 50, 35 * time.Second}, {min, time.Minute, 100, 10 * time.Second},
		{min, 5 * time.Second, 100, 5 * time.Second}, {min, 0, 100, 0}, {part, time.Minute, 100, 12 * time.Second},
		{resource.ScaledTimeout{}, time.Minute, 100, time.Minute}, {min, 10_000 * time.Hour, 1, 9900 * time.Hour},
	} {
		got := c.s.Scaled(c.t, c.scale)
		if d := got - c.want; d < -time.Hour || d > time.Hour || c.t < time.Hour && d != 0 {
			t.Errorf("%v at %d is %v, want %v", c.t, c.scale, got, c.want)
		}
	}
}

func TestDefaultsKeepAnIdleProcessAsItIs(t *testing.T) {
	for _, limit := range []uint64{0, 128 << 20} {
		m := New(Defaults(limit, ""))
		m.Update(func(_ int, o *resource.OverloadMonitor) (float64, error) { return float64(o.Max) * 0.5, nil })
		if s := m.State(); s != 0 {
			t.Errorf("at half of all limits the state is %x", s)
		}
		m.Update(func(_ int, o *resource.OverloadMonitor) (float64, error) {
			if o.Kind == resource.MonitorMemory {
				return float64(o.Max), nil
			}
			return 0, nil
		})
		s := m.State()
		for _, k := range []resource.OverloadActionKind{resource.ActionStopAcceptingRequests, resource.ActionStopAcceptingConnections, resource.ActionDisableKeepAlive, resource.ActionReduceTimeouts} {
			if got := s.Scale(k) == 100; got != (limit > 0) {
				t.Errorf("limit %d: with all memory in use %s is at %d", limit, k, s.Scale(k))
			}
		}
	}
}

func TestMemoryIsWhatTheProcessNeeds(t *testing.T) {
	before, _, _, err := new(Gauge).Memory(1<<40, 0)
	if err != nil || before < 1<<20 || before > 1<<32 {
		t.Fatalf("%d bytes, %v", before, err)
	}
}

// noLimitOfVersion1 is what the kernel says where there is none.
const noLimitOfVersion1 = 9223372036854771712

func TestTheLeastLimitOfTheGroupsCounts(t *testing.T) {
	mount := t.TempDir()
	for path, max := range map[string]string{"": "max", "a": "4096\n", "a/b": "8192", "c": "max"} {
		os.MkdirAll(filepath.Join(mount, path), 0o700)
		if err := os.WriteFile(filepath.Join(mount, path, "memory.max"), []byte(max), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, limit := range map[string]string{"": "9223372036854771712\n", "a": "65536\n", "a/b": "9223372036854771712\n"} {
		os.MkdirAll(filepath.Join(mount, "memory", path), 0o700)
		if err := os.WriteFile(filepath.Join(mount, "memory", path, "memory.limit_in_bytes"), []byte(limit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for own, want := range map[string]uint64{
		"4:memory:/a/b\n0::/\n": 65536, "4:cpu,memory:/a\n": 65536, "4:memory:/outside/name\n": noLimitOfVersion1, "4:memory:/a\n0::/a\n": 4096, "4:cpu:/a\n": math.MaxUint64,
		"0::/a/b\n": 4096, "0::/a\n": 4096, "1:cpu:/a\n0::/c\n": math.MaxUint64, "0::/\n": math.MaxUint64, "0::/../../x\n": math.MaxUint64, "": math.MaxUint64,
		"0::/a/b/gone\n": 4096,
	} {
		if got, _ := groupLimit(mount, own); got != want {
			t.Errorf("%q: %d, want %d", own, got, want)
		}
	}
}

func TestWhatTheKernelNeedsCounts(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		text string
		want uint64
	}{
		"memory.kmem.usage_in_bytes": {"123\n", 123},
		// most of it may be names of files, which the kernel takes back
		"of-many-files.usage_in_bytes": {"900000\n", 1000},
		"memory.stat":                  {"anon 5000\nkernel 400\nsock 30\nslab_reclaimable 7\nslab 300\n", 423},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Kernel(file, 4000, 0); got != tc.want || err != nil {
			t.Errorf("%s: %d, %v, want %d", name, got, err, tc.want)
		}
	}
	if n, err := Kernel(filepath.Join(dir, "of-many-files.usage_in_bytes"), 4000, 100); n != 800<<10 || err != nil {
		t.Errorf("of 100 connections: %d, %v, want %d", n, err, 800<<10)
	}
	if _, err := Kernel(filepath.Join(dir, "gone"), 4000, 0); err == nil {
		t.Error("a file that is not there has no error")
	}
}

func TestAGroupsKernelFileIsOneThatCanBeRead(t *testing.T) {
	mount := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(mount, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mount, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ own, limit, kernel string }{
		{"4:memory:/\n", "memory/memory.limit_in_bytes", "memory/memory.kmem.usage_in_bytes"},
		{"0::/\n", "memory.max", "memory.stat"},
	} {
		write(tc.limit, "4096\n")
		if n, file := groupLimit(mount, tc.own); n != 4096 || file != "" {
			t.Errorf("%q without accounting of the kernel's memory: %d, %q", tc.own, n, file)
		}
		write(tc.kernel, "17\n")
		if n, file := groupLimit(mount, tc.own); n != 4096 || filepath.Clean(file) != filepath.Join(mount, tc.kernel) {
			t.Errorf("%q: %d, %q", tc.own, n, file)
		}
	}
}

func TestWhatIsKnownBesideAnErrorIsThePressure(t *testing.T) {
	m := New(resource.Overload{Monitors: []resource.OverloadMonitor{{Name: "memory", Max: 100}}})
	failure := errors.New("a part cannot be read")
	for i, tc := range []struct {
		used float64
		err  error
		want Resource
	}{
		{50, nil, Resource{"memory", 50, 0}},
		{0, failure, Resource{"memory", 50, 1}}, // nothing is known
		{90, failure, Resource{"memory", 90, 2}},
		{math.NaN(), failure, Resource{"memory", 90, 3}},
		{0, nil, Resource{"memory", 0, 3}},
	} {
		m.Update(func(int, *resource.OverloadMonitor) (float64, error) { return tc.used, tc.err })
		if got := m.Resources()[0]; got != tc.want {
			t.Errorf("update %d: %+v, want %+v", i, got, tc.want)
		}
	}
}
