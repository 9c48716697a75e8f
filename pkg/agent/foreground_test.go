// SPDX-License-Identifier: Apache-2.0

package agent

import "testing"

func TestTheTerminalIsTakenOnlyFromTheForeground(t *testing.T) {
	for _, tc := range []struct {
		name, stat string
		device     uint64
		ok         bool
	}{
		{"in the foreground", "12 (sidecar) S 1 12 12 34816 12 4194304 0", 34816, true},
		{"a name with parentheses", "12 (a) b (c) S 1 12 12 34816 12 4194304 0", 34816, true},
		{"in the background", "12 (sidecar) S 1 12 12 34816 99 4194304 0", 34816, false},
		{"without a terminal", "12 (sidecar) S 1 12 12 0 -1 4194304 0", 0, false},
		{"cut short", "12 (sidecar) S 1", 0, false},
		{"nothing", "", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			device, ok := foregroundTerminal([]byte(tc.stat))
			if ok != tc.ok || ok && device != tc.device {
				t.Errorf("got %d, %v, want %d, %v", device, ok, tc.device, tc.ok)
			}
		})
	}
}
