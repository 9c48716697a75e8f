// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// fileOp is one thing that a traced process did to the files of its folder, or a
// line that it printed.
type fileOp struct {
	kind     opKind
	path, to string // to: of a rename
	offset   int64  // of a write; the size of a truncation
	data     []byte // of a write; the line
}

type opKind string

const (
	opWrite    opKind = "write"
	opSync     opKind = "sync"
	opTruncate opKind = "truncate"
	opRename   opKind = "rename"
	opLine     opKind = "line"
)

// Of ptrace(2) and wait(2), not in package syscall.
const (
	ptraceSyscallInfo = 0x420e
	ptraceExitKill    = 0x100000
	syscallEntry      = 1
	waitOwnThread     = 0x20000000 // __WNOTHREAD
	syscallStop       = syscall.SIGTRAP | 0x80
)

// syscallInfo is struct ptrace_syscall_info at the entry of a system call.
type syscallInfo struct {
	op       uint8
	_        [3]uint8
	arch     uint32
	ip, sp   uint64
	nr       uint64
	args     [6]uint64
	reserved [2]uint64
}

// tracer runs the test binary as a child under ptrace: nothing in the store or in
// bbolt knows of it, and each operation is seen before it happens. It belongs to
// one goroutine, locked to its thread.
type tracer struct {
	dir  string
	pid  int
	ops  []fileOp
	stop int // kill before so many file operations; 0: never
	done int // file operations
	dead bool
}

// trace runs the child's script over a folder, and kills it before its n-th file
// operation if n is not 0. It returns what it did, and whether it was killed.
func trace(t *testing.T, dir string, n int, env ...string) (ops []fileOp, killed bool) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close() //nolint:errcheck // nothing is written to it
	x := &tracer{dir: dir, stop: n}
	x.pid, err = syscall.ForkExec(os.Args[0], os.Args[:1], &syscall.ProcAttr{
		Env:   append(os.Environ(), append(env, childDirEnv+"="+dir, childScriptEnv+"=1")...),
		Files: []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd()}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("this host does not let a process trace its child: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	status, err := x.run()
	if err != nil {
		_ = syscall.Kill(x.pid, syscall.SIGKILL) // it is ours and traced
		t.Fatal(err)
	}
	switch {
	case status.Signaled() && status.Signal() == syscall.SIGKILL && x.dead:
		return x.ops, true
	case status.Exited() && status.ExitStatus() == 0:
		return x.ops, false
	}
	t.Fatalf("the child ended with %#x after %d operations: %s", status, x.done, x.lines())
	return nil, false
}

func (x *tracer) lines() string {
	var b strings.Builder
	for _, o := range x.ops {
		if o.kind == opLine {
			b.Write(o.data)
		}
	}
	return b.String()
}

// run goes from system call to system call until the child has ended.
func (x *tracer) run() (status syscall.WaitStatus, err error) {
	if _, err := syscall.Wait4(x.pid, &status, syscall.WALL, nil); err != nil {
		return status, err
	}
	if err := syscall.PtraceSetOptions(x.pid, syscall.PTRACE_O_TRACECLONE|syscall.PTRACE_O_TRACESYSGOOD|ptraceExitKill); err != nil {
		return status, err
	}
	threads := map[int]bool{x.pid: true}
	for tid := x.pid; ; {
		deliver := 0
		switch sig := status.StopSignal(); {
		case sig == syscallStop:
			if err := x.syscall(tid); err != nil {
				return status, err
			}
		case sig == syscall.SIGTRAP: // exec, or a thread was made
		case sig == syscall.SIGSTOP && !threads[tid]: // a thread begins
		default:
			deliver = int(sig)
		}
		threads[tid] = true
		if err := syscall.PtraceSyscall(tid, deliver); err != nil && !errors.Is(err, syscall.ESRCH) { // killed meanwhile
			return status, err
		}
		for {
			if tid, err = syscall.Wait4(-1, &status, syscall.WALL|waitOwnThread, nil); errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				return status, fmt.Errorf("wait: %w", err)
			}
			if status.Stopped() {
				break
			}
			if tid == x.pid {
				return status, nil
			}
		}
	}
}

// syscall looks at a thread that enters or leaves a system call.
func (x *tracer) syscall(tid int) error {
	var in syscallInfo
	_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, ptraceSyscallInfo, uintptr(tid), unsafe.Sizeof(in), uintptr(unsafe.Pointer(&in)), 0, 0)
	if errno == syscall.ESRCH {
		return nil // killed meanwhile
	}
	if errno != 0 {
		return fmt.Errorf("PTRACE_GET_SYSCALL_INFO: %w", errno)
	}
	if in.op != syscallEntry || x.dead {
		return nil
	}
	op, err := x.operation(&in)
	if err != nil || op.kind == "" {
		return err
	}
	if op.kind != opLine {
		if x.done++; x.done == x.stop {
			x.dead = true
			return syscall.Kill(x.pid, syscall.SIGKILL)
		}
	}
	x.ops = append(x.ops, op)
	return nil
}

// operation reads what a system call is about to do; the zero fileOp for what is
// of no interest.
func (x *tracer) operation(in *syscallInfo) (op fileOp, err error) {
	switch in.nr {
	case syscall.SYS_WRITE:
		if in.args[0] != 1 {
			return op, nil
		}
		op.kind = opLine
		op.data, err = x.memory(in.args[1], int(in.args[2]))
		return op, err
	case syscall.SYS_PWRITE64:
		op.kind, op.offset = opWrite, int64(in.args[3])
	case syscall.SYS_FDATASYNC, syscall.SYS_FSYNC:
		op.kind = opSync
	case syscall.SYS_FTRUNCATE:
		op.kind, op.offset = opTruncate, int64(in.args[1])
	case syscall.SYS_RENAMEAT:
		op.kind = opRename
		if op.path, err = x.text(in.args[1]); err == nil {
			op.to, err = x.text(in.args[3])
		}
		return op, err
	default:
		return op, nil
	}
	if op.path, err = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", x.pid, in.args[0])); err != nil {
		return op, err
	}
	if op.path != x.dir && filepath.Dir(op.path) != x.dir {
		return fileOp{}, nil
	}
	if op.kind == opWrite {
		op.data, err = x.memory(in.args[1], int(in.args[2]))
	}
	return op, err
}

func (x *tracer) memory(at uint64, n int) ([]byte, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", x.pid))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	b := make([]byte, n)
	got, err := f.ReadAt(b, int64(at))
	if got < n {
		return nil, fmt.Errorf("memory of the child: %w", err)
	}
	return b, nil
}

// text is a C string.
func (x *tracer) text(at uint64) (string, error) {
	for n := 64; ; n *= 2 {
		b, err := x.memory(at, n)
		if err != nil {
			return "", err
		}
		if i := bytes.IndexByte(b, 0); i >= 0 {
			return string(b[:i]), nil
		}
	}
}
