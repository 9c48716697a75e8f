// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// execSidecar runs `sidecar exec` with a shell script as the command; $DIR in it is
// the sidecar's folder.
func execSidecar(t *testing.T, cp *controlPlane, script string, flags ...string) *sidecar {
	t.Helper()
	args := append([]string{"exec"}, cp.common(flags...)...)
	return startSidecar(t, append(args, "--", "/bin/sh", "-c", script)...)
}

func (s *sidecar) has(name string) bool {
	_, err := os.Stat(filepath.Join(s.dir, name))
	return err == nil
}

func TestTheCommandBeginsWhenTheSidecarIsReadyAndItsExitCodeIsKept(t *testing.T) {
	cp := startControlPlane(t)
	s := execSidecar(t, cp, `touch began; while [ ! -e go ]; do sleep 0.01; done; echo done; exit 42`)
	eventually(t, "the sidecar waits", func() bool { return strings.Contains(s.stderr.String(), "waiting for the first complete") })
	if s.has("began") {
		t.Fatal("the command began before the sidecar was ready")
	}
	s.touch("configured")
	eventually(t, "the command began", func() bool { return s.has("began") })
	eventually(t, "it is registered", func() bool { return len(cp.instances("orders")) == 1 })
	ended := time.Now()
	s.touch("go")
	eventually(t, "what it has sent arrives", func() bool { return s.events() == "drain outbound" })
	s.touch("drained")
	s.wantExit(42, "done")
	if took := time.Since(ended); took > 5*time.Second {
		t.Errorf("the sidecar ended %v after its command", took)
	}
	if len(cp.instances("orders")) != 0 {
		t.Error("the instance is still registered")
	}
	if got := s.events(); got != "drain outbound, drain ended, close" {
		t.Errorf("got %q: with the application gone only what it has sent is to arrive", got)
	}
}

func TestACommandThatSucceedsEndsWithZero(t *testing.T) {
	s := execSidecar(t, startControlPlane(t), `exit 0`)
	s.touch("drained")
	s.touch("configured")
	s.wantExit(exitOK, "msg=\"command ended\"")
}

func TestTheInboundSideDrainsBeforeTheCommandIsToldToEnd(t *testing.T) {
	cp := startControlPlane(t)
	s := execSidecar(t, cp, `trap 'touch told; exit 3' TERM; touch began; while :; do sleep 0.01; done`)
	s.touch("configured")
	eventually(t, "the command began", func() bool { return s.has("began") })
	eventually(t, "it is registered", func() bool { return len(cp.instances("orders")) == 1 })
	s.signal(syscall.SIGTERM)
	eventually(t, "the inbound side drains", func() bool { return s.events() == "drain inbound" })
	if s.has("told") {
		t.Error("the command was told while it still had requests to answer")
	}
	if len(cp.instances("orders")) != 0 {
		t.Error("it drains while others still send to it")
	}
	s.touch("drained")
	s.wantExit(3, "")
	if !s.has("told") {
		t.Error("the command was never told")
	}
}

func TestASecondSignalReachesTheCommandAtOnce(t *testing.T) {
	cp := startControlPlane(t)
	s := execSidecar(t, cp, `trap 'exit 5' INT; trap 'exit 6' TERM; touch began; while :; do sleep 0.01; done`)
	s.touch("configured")
	eventually(t, "the command began", func() bool { return s.has("began") })
	s.signal(syscall.SIGTERM)
	eventually(t, "the inbound side drains", func() bool { return s.events() == "drain inbound" })
	s.signal(syscall.SIGINT)
	eventually(t, "what it has sent arrives", func() bool { return strings.HasSuffix(s.events(), "drain outbound") })
	s.signal(syscall.SIGINT) // does not wait for that
	s.wantExit(5, "")
}

func TestOtherSignalsPassThrough(t *testing.T) {
	cp := startControlPlane(t)
	s := execSidecar(t, cp, `trap 'exit 8' USR2; touch began; while :; do sleep 0.01; done`)
	s.touch("configured")
	eventually(t, "the command began", func() bool { return s.has("began") })
	s.touch("drained")
	s.signal(syscall.SIGUSR2)
	s.wantExit(8, "")
}

func TestACommandThatCannotBeRunIsTold(t *testing.T) {
	cp := startControlPlane(t)
	s := startSidecar(t, append(append([]string{"exec"}, cp.common()...), "--", "/no/such/program")...)
	s.touch("configured")
	s.wantExit(127, `command "/no/such/program"`)
}

func TestASidecarThatFailsBeforeItsCommandEndsWith125(t *testing.T) {
	cp := startControlPlane(t)
	s := execSidecar(t, cp, `touch began`, "--ready-timeout", "30ms")
	s.wantExit(exitExecFailed, "--ready-timeout 30ms: not ready in time")
	if s.has("began") {
		t.Error("the command ran without a ready sidecar")
	}
	s = execSidecar(t, cp, `touch began`)
	eventually(t, "the sidecar waits", func() bool { return strings.Contains(s.stderr.String(), "waiting for the first complete") })
	s.touch("fail")
	s.wantExit(exitExecFailed, "told to fail")
	s = execSidecar(t, cp, `touch began`)
	eventually(t, "the sidecar waits", func() bool { return strings.Contains(s.stderr.String(), "waiting for the first complete") })
	s.signal(syscall.SIGTERM)
	s.wantExit(128+int(syscall.SIGTERM), "")
}

func TestADataPathThatFailsEndsTheCommandInOrder(t *testing.T) {
	cp := startControlPlane(t)
	s := execSidecar(t, cp, `trap 'exit 9' TERM; touch began; while :; do sleep 0.01; done`)
	s.touch("configured")
	eventually(t, "the command began", func() bool { return s.has("began") })
	s.touch("drained")
	s.touch("fail")
	s.wantExit(9, "told to fail")
}

// An application that is told to end together with its sidecar still calls others while
// it does.
func TestTheOutboundSideStaysOpenUntilTheApplicationHasGone(t *testing.T) {
	cp := startControlPlane(t)
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	s := startSidecar(t, cp.common("--app", app.Addr().String(), "--drain-order", "inbound-first", "--settle-time", "0s")...)
	s.touch("configured")
	eventually(t, "it is registered", func() bool { return len(cp.instances("orders")) == 1 })
	s.signal(syscall.SIGTERM)
	eventually(t, "the inbound side drains", func() bool { return s.events() == "drain inbound" })
	s.touch("drained")
	eventually(t, "the inbound side has drained", func() bool { return s.events() == "drain inbound, drain ended" })
	c, err := app.Accept() // somebody looks whether it is there
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if got := s.events(); got != "drain inbound, drain ended" {
		t.Errorf("while the application is there: %s", got)
	}
	_ = app.Close()
	s.wantExit(exitOK, "applicationGone=true")
	if got := s.events(); got != "drain inbound, drain ended, drain outbound, drain ended, close" {
		t.Errorf("got %s", got)
	}
}
