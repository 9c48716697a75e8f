// SPDX-License-Identifier: Apache-2.0

package overload

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestWhatLoopsHaveComeToHoldAddsToThePressureUntilItIsMeasured(t *testing.T) {
	Measure{}.Counted()
	Measure{}.CountedKernel()
	m := New(Defaults(1000, "group/memory.stat"))
	measure := func(used float64, counted bool) {
		m.Update(func(_ int, o *resource.OverloadMonitor) (float64, error) {
			if o.Kind != resource.MonitorMemory {
				return 0, nil
			}
			look := m.Measure()
			if counted {
				look.Counted()
			}
			look.CountedKernel()
			return used, nil
		})
	}
	refuse := func(step string, want uint8) {
		t.Helper()
		if got := m.State().Scale(resource.ActionStopAcceptingRequests); got != want {
			t.Errorf("%s: requests are refused at %d, want %d", step, got, want)
		}
	}
	measure(500, true)
	refuse("half", 0)
	if !m.Grow(300, 100) {
		t.Error("the state has not changed")
	}
	refuse("grown to 900", 50)
	m.Grow(0, 200)
	refuse("grown to 1100", 100)
	measure(500, false) // nothing was collected: what is held is not in it
	refuse("the kernel's part is measured", 0)
	if n := m.Resources()[1].Pressure; n != 80 {
		t.Errorf("the pressure is %d, want 80", n)
	}
	measure(800, true)
	if n := m.Resources()[1].Pressure; n != 80 {
		t.Errorf("with everything measured the pressure is %d, want 80", n)
	}
	m.Grow(-700, -100)
	if n := m.Resources()[1].Pressure; n != 80 {
		t.Errorf("what was let go of is not known to be free: the pressure is %d, want 80", n)
	}
}

func TestSocketsAreBoundedWhereMemoryIsShort(t *testing.T) {
	for _, tc := range []struct {
		limit   uint64
		kernel  string
		buffer  int
		charged bool
	}{
		{0, "", 0, false}, {8 << 20, "memory.stat", 16 << 10, true}, {96 << 20, "g/memory.kmem.usage_in_bytes", 48 << 10, false},
		{512 << 20, "g/memory.stat", 256 << 10, true}, {1 << 30, "g/memory.stat", 0, true},
	} {
		if o := Defaults(tc.limit, tc.kernel); o.SocketBuffer != tc.buffer || o.SocketCharged != tc.charged {
			t.Errorf("%d, %q: %d bytes, charged %v, want %d, %v", tc.limit, tc.kernel, o.SocketBuffer, o.SocketCharged, tc.buffer, tc.charged)
		}
	}
}

func TestTheHeapsLimitLeavesRoomForTheKernel(t *testing.T) {
	for _, tc := range [][3]uint64{{6400, 0, 6400}, {6400, 1, 6300}, {6400, 100, 6300}, {6400, 101, 6200}, {6400, 3200, 3200}, {6400, 6000, 3200}, {6400, 1 << 40, 3200}} {
		if got := HeapLimit(tc[0], tc[1], 64); got != tc[2] {
			t.Errorf("the kernel needs %d of %d: %d, want %d", tc[1], tc[0], got, tc[2])
		}
	}
}
