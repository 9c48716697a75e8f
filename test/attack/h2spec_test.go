// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"context"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// h2specCases is how many cases h2spec 2.2.1 has; in strict mode none is skipped.
const h2specCases = "146 tests, 146 passed, 0 skipped, 0 failed"

// TestH2specFindsNothing is h2spec's strict mode against the sidecar, in front of a
// backend that speaks HTTP/1.1.
func TestH2specFindsNothing(t *testing.T) {
	if os.Getenv("OUTRIGGER_PEERS") == "" {
		t.Skip("runs real peers: set OUTRIGGER_PEERS=1")
	}
	if out, err := exec.Command("../peers/h2spec", "install").CombinedOutput(); err != nil {
		t.Fatalf("install h2spec: %v: %s", err, out)
	}
	path, err := exec.Command("../peers/h2spec", "path").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, transport := range []string{"cleartext", "TLS"} {
		t.Run(transport, func(t *testing.T) {
			g := target{Upstream: hostile(t, answerAll(100)), Secure: transport == "TLS"}
			if !g.Secure { // over TLS it is ALPN that says so; else no preface is HTTP/1.1, and is told so
				g.Manager = "codec_type: HTTP2"
			}
			p := start(t, g)
			_, port, _ := net.SplitHostPort(p.addr)
			argv := []string{"--strict", "--timeout", "5", "-h", "127.0.0.1", "-p", port}
			if transport == "TLS" {
				argv = append(argv, "--tls", "--insecure")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			out, err := exec.CommandContext(ctx, strings.TrimSpace(string(path)), argv...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), h2specCases) {
				t.Errorf("%v\n%s", err, out)
			}
			t.Logf("%s: %s", transport, regexp.MustCompile(`\d+ tests, .*`).Find(out))
		})
	}
}
