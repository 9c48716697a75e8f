// SPDX-License-Identifier: Apache-2.0

package footprint

import "testing"

func TestTrimLeavesTheProgramRunning(t *testing.T) {
	if err := Trim(); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyReadOnlyMappingsOfTheExecutableAreTrimmed(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-00f0b000 r-xp 00000000 fe:00 1 /bin/x\n":  true,
		"00f0b000-01800000 r--p 00b0b000 fe:00 1 /bin/x\n":  true,
		"01800000-01900000 rw-p 01400000 fe:00 1 /bin/x\n":  false,
		"7f0000000000-7f0000001000 r--p 0 fe:00 2 /lib/y\n": false,
		"c000000000-c000400000 rw-p 00000000 00:00 0\n":     false,
		"zz-yy r-xp 0 0 0 /bin/x\n":                         false,
	} {
		if _, _, ok := readOnly(line, "/bin/x"); ok != want {
			t.Errorf("%q: got %v", line, ok)
		}
	}
}
