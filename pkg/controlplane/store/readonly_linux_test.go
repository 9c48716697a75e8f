// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

const childReadOnlyEnv = "STORE_TEST_READ_ONLY"

// Of seccomp(2) and prctl(2), not in package syscall.
const (
	prSetNoNewPrivs   = 38
	seccompModeFilter = 1
	seccompAllThreads = 1 // SECCOMP_FILTER_FLAG_TSYNC
	seccompAllow      = 0x7fff0000
	seccompErrno      = 0x00050000
)

// seccompCall is the number of seccomp(2) by architecture.
var seccompCall = map[string]uintptr{"amd64": 317, "arm64": 277}[runtime.GOARCH]

// denyWrites makes every write and truncation of a file fail as on a file system
// that has become read-only; for good, and for all threads.
func denyWrites() error {
	const loadWord, jumpEqual, ret = syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, syscall.BPF_RET | syscall.BPF_K
	filter := []syscall.SockFilter{
		{Code: loadWord, K: 0}, // the number of the system call
		{Code: jumpEqual, K: syscall.SYS_PWRITE64, Jt: 2},
		{Code: jumpEqual, K: syscall.SYS_FTRUNCATE, Jt: 1},
		{Code: ret, K: seccompAllow},
		{Code: ret, K: seccompErrno | uint32(syscall.EROFS)},
	}
	program := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Of this thread: the filter takes it to the others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", errno)
	}
	if _, _, errno := syscall.Syscall(seccompCall, seccompModeFilter, seccompAllThreads, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// readOnlyChild writes, loses the disk, and says what still works.
func readOnlyChild(dir string) int {
	s, err := Open(Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	ctx := context.Background()
	put := func(name string) error {
		o, err := mesh.ParseOne([]byte(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"` + name + `"}}`))
		if err == nil {
			_, err = s.PutObject(ctx, o, registry.Match{})
		}
		return err
	}
	_, _, registered := s.Registry().Register(ctx, inst("x", "first"), 0, registry.Match{})
	if err := errors.Join(put("before"), registered); err != nil {
		fmt.Println("error", err)
		return 1
	}
	if err := denyWrites(); err != nil {
		fmt.Println("skip", err)
		return 0
	}
	for range 3 {
		fmt.Println("refused", errors.Is(put("after"), ErrReadOnly))
	}
	fmt.Println("readable", len(s.Model().Objects["Service"]) == 1)
	_, err = s.Registry().Renew(ctx, mesh.InstanceKey{Service: "x", ID: "first"}, mesh.HealthUnknown)
	fmt.Println("heartbeat", err == nil)
	_, _, err = s.Registry().Register(ctx, inst("x", "second"), 0, registry.Match{})
	fmt.Println("instance", err == nil || errors.Is(err, ErrReadOnly))
	return 0
}

func TestAReadOnlyDiskRefusesWritesAndServesReads(t *testing.T) {
	dir := t.TempDir()
	out, err := rerun(dir, childReadOnlyEnv+"=1").Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, out)
	} else if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(out)) {
		what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what == "skip" {
			t.Skipf("this host does not let a process filter its system calls: %s", value)
		}
		if lines++; value != "true" {
			t.Errorf("%s: got %s", what, value)
		}
	}
	if lines != 6 {
		t.Errorf("got %d lines, want 6:\n%s", lines, out)
	}
	s := open(t, Config{Dir: dir})
	if m := s.Model(); m.Object(mesh.Key{Kind: "Service", Name: "before"}) == nil || m.Object(mesh.Key{Kind: "Service", Name: "after"}) != nil {
		t.Errorf("after a restart there are %v", m.Objects["Service"])
	}
}
