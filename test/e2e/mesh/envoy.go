// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// NeedPeers skips a test that runs programs of somebody else, unless they are asked for.
func NeedPeers(t testing.TB) {
	t.Helper()
	if os.Getenv("OUTRIGGER_PEERS") == "" {
		t.Skip("runs real peers: set OUTRIGGER_PEERS=1")
	}
}

// Both runs a test with "sidecar" and, where real peers are asked for, with "envoy", which
// StartProxy takes.
func Both(t *testing.T, test func(t *testing.T, program string)) {
	t.Helper()
	t.Run("sidecar", func(t *testing.T) { test(t, "sidecar") })
	t.Run("envoy", func(t *testing.T) {
		NeedPeers(t)
		test(t, "envoy")
	})
}

// StartProxy is StartFile or StartEnvoy, by the program's name.
func StartProxy(t testing.TB, program, dir, text, admin string) *Process {
	t.Helper()
	if program == "envoy" {
		return StartEnvoy(t, dir, text, admin)
	}
	return StartFile(t, dir, text, admin).Process
}

// StartEnvoy is StartFile for the real Envoy, which is installed if it is not
// there yet.
func StartEnvoy(t testing.TB, dir, text, admin string) *Process {
	t.Helper()
	const script = "../peers/envoy"
	if out, err := exec.Command(script, "install").CombinedOutput(); err != nil {
		t.Fatalf("install envoy: %v: %s", err, out)
	}
	path, err := exec.Command(script, "path").Output()
	if err != nil {
		t.Fatalf("path of envoy: %v", err)
	}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Start(t, "envoy", filepath.Join(dir, "envoy.log"), nil, strings.TrimSpace(string(path)),
		"-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warn", "--file-flush-interval-msec", "20")
	p.Await(startLimit, "envoy to be ready", func() error {
		_, err := Get("http://" + admin + "/ready")
		return err
	})
	return p
}
