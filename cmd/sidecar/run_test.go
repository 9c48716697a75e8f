// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
)

func TestASidecarRegistersWhenConfiguredAndLeavesBeforeItDrains(t *testing.T) {
	cp := startControlPlane(t)
	s := startSidecar(t, cp.common("--id", "one", "--zone", "z1", "--version-label", "v2", "--weight", "3", "--label", "team=shop", "--admin-address-path", "admin.txt")...)
	eventually(t, "the admin address is written", func() bool {
		data, err := os.ReadFile(filepath.Join(s.dir, "admin.txt"))
		return err == nil && strings.HasPrefix(string(data), "127.0.0.1:")
	})
	if got := cp.instances("orders"); len(got) != 0 {
		t.Fatalf("registered before it was configured: %+v", got[0])
	}
	s.touch("configured")
	eventually(t, "it is registered", func() bool { return len(cp.instances("orders")) == 1 })
	i := cp.instances("orders")[0]
	if i.ID != "one" || i.Address != "127.0.0.1" || i.Port != 15906 || i.Node != "orders~one" || i.Zone != "z1" ||
		i.Version != "v2" || i.Weight != 3 || i.Metadata["team"] != "shop" {
		t.Errorf("registered as %+v", i)
	}
	s.signal(syscall.SIGUSR1)
	eventually(t, "the logs were opened anew", func() bool { return s.events() == "reopen" })
	s.signal(syscall.SIGHUP)
	eventually(t, "the bootstrap was read again", func() bool { return s.events() == "reopen, reload" })
	s.signal(syscall.SIGTERM)
	eventually(t, "it drains", func() bool { return strings.HasSuffix(s.events(), "drain all") })
	if got := cp.instances("orders"); len(got) != 0 {
		t.Error("it drains while others still send to it")
	}
	s.touch("drained")
	s.wantExit(exitOK, "msg=ended")
	if got := s.events(); got != "reopen, reload, drain all, drain ended, close" {
		t.Errorf("got %s", got)
	}
}

// The table of the places that samples come from is never given back.
func TestOnlyASidecarThatMayBeProfiledSamplesItsHeap(t *testing.T) {
	for flag, samples := range map[string]bool{"": false, "--admin-profiling": true} {
		cp := startControlPlane(t)
		s := startSidecar(t, cp.common(strings.Fields(flag)...)...)
		s.touch("configured")
		eventually(t, "it is ready", func() bool { return strings.Contains(s.stderr.String(), "msg=ready") })
		b, err := os.ReadFile(filepath.Join(s.dir, "heapsamples"))
		if got := string(b); err != nil || (got != "0") != samples {
			t.Errorf("with %q one sample for %s bytes: %v", flag, got, err)
		}
	}
}

func TestTheAdminPortCanEndASidecar(t *testing.T) {
	cp := startControlPlane(t)
	s := startSidecar(t, cp.common()...)
	s.touch("configured")
	s.touch("drained")
	eventually(t, "it is ready", func() bool { return strings.Contains(s.stderr.String(), "msg=ready") })
	s.touch("quit")
	s.wantExit(exitOK, "asked by the admin port")
}

func TestASecondSignalEndsASidecarAtOnce(t *testing.T) {
	cp := startControlPlane(t)
	s := startSidecar(t, cp.common()...)
	s.touch("configured")
	eventually(t, "it is registered", func() bool { return len(cp.instances("orders")) == 1 })
	s.signal(syscall.SIGTERM)
	eventually(t, "it drains", func() bool { return s.events() == "drain all" })
	s.signal(syscall.SIGINT)
	s.wantExit(exitFailed, "second signal")
}

// A process manager that signals the process and its group sends the same twice.
func TestTheEchoOfASignalLetsASidecarDrain(t *testing.T) {
	cp := startControlPlane(t)
	s := startSidecar(t, cp.common()...)
	s.touch("configured")
	eventually(t, "it is registered", func() bool { return len(cp.instances("orders")) == 1 })
	s.signal(syscall.SIGINT)
	s.signal(syscall.SIGINT)
	eventually(t, "it drains", func() bool { return s.events() == "drain all" })
	s.touch("drained")
	s.wantExit(exitOK, "msg=ended")
}

func TestADataPathThatEndsByItselfEndsTheSidecar(t *testing.T) {
	s := startSidecar(t, startControlPlane(t).common()...)
	s.touch("fail")
	s.wantExit(exitFailed, "data path: told to fail")
}

func TestASidecarEndsInOrderWithoutItsControlPlane(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	s := startSidecar(t, (&controlPlane{address: address}).common()...)
	s.touch("configured") // from the last good configuration on disk
	s.touch("drained")
	eventually(t, "it is ready", func() bool { return strings.Contains(s.stderr.String(), "msg=ready") })
	s.signal(syscall.SIGTERM)
	s.wantExit(exitOK, "msg=ended")
}

func TestABusyAddressAndABusyFolderAreTold(t *testing.T) {
	cp := startControlPlane(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	args := cp.common()
	for i, a := range args {
		if a == "--outbound" {
			args[i+1] = l.Addr().String()
		}
	}
	startSidecar(t, args...).wantExit(exitBusy, "--outbound: listen tcp "+l.Addr().String())

	data := t.TempDir()
	first := startSidecar(t, cp.common("--data", data)...)
	first.touch("configured")
	eventually(t, "the first runs", func() bool { return strings.Contains(first.stderr.String(), "msg=ready") })
	startSidecar(t, cp.common("--data", data)...).wantExit(exitBusy, "in use by another sidecar")
	first.signal(syscall.SIGKILL)
	first.exit()
	third := startSidecar(t, cp.common("--data", data)...)
	third.touch("configured")
	eventually(t, "a third runs after the first was killed", func() bool { return strings.Contains(third.stderr.String(), "msg=ready") })
}

func TestTheDataFolderIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	lock, err := openData(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v, want mode 0700", info.Mode(), err)
	}
}

func TestTheTokenIsSentToTheControlPlane(t *testing.T) {
	option, err := sidecarservice.RequireToken("s3cret")
	if err != nil {
		t.Fatal(err)
	}
	cp := startControlPlane(t, option)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startSidecar(t, cp.common("--token-file", token)...)
	s.touch("configured")
	eventually(t, "it is refused", func() bool {
		return strings.Contains(s.stderr.String(), "the bearer token is not the one of this control plane")
	})
	if len(cp.instances("orders")) != 0 {
		t.Error("registered with the wrong token")
	}
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is registered with the right one", func() bool { return len(cp.instances("orders")) == 1 })
}
