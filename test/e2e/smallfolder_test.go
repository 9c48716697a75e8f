// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// smallFolder is a folder on a file system of its own of so many bytes.
func smallFolder(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("outrigger-e2e", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", bytes)); err != nil {
		if os.Getuid() != 0 {
			t.Skipf("mounting a small file system needs root: %v", err)
		}
		t.Skipf("this host does not let its root mount: %v", err)
	}
	t.Cleanup(func() {
		// Processes of the test that use it have ended: their clean-ups came later.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// readOnly remounts a small folder.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("outrigger-e2e", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatalf("remount %s: %v", dir, err)
	}
}
