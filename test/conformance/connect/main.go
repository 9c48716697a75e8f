// SPDX-License-Identifier: Apache-2.0

// Command connect runs connectrpc's conformance suite (the Connect protocol, gRPC
// and gRPC-Web, over HTTP/1.1 and HTTP/2, cleartext and TLS) against the suite's
// own reference server: directly, through one sidecar and through two. It fails
// where a case does not end through sidecars as it does without.
//
//	go run ./test/conformance/connect                  # 0, 1 and 2 sidecars, and one that translates
//	go run ./test/conformance/connect -hops 1 -run '**/unary/**' -trace
//
// The suite's programs come from the Go module proxy (test/peers/connectconformance).
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/programs"
)

const suiteLimit = 10 * time.Minute // of one run on a busy machine

func main() {
	if len(os.Args) > 1 && os.Args[1] == behindCommand {
		if err := behind(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "connect behind:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	hops := flag.String("hops", "0,1,2,web", "numbers of sidecars; web: one that makes calls of gRPC of those of gRPC-Web")
	flag.StringVar(&o.run, "run", "", "pattern of the cases to run; empty: all")
	flag.BoolVar(&o.trace, "trace", false, "show the exchanges of cases that fail")
	flag.StringVar(&o.sidecar, "sidecar", "", "the sidecar's program; empty: it is built")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := runAll(ctx, *hops, o); err != nil {
		fmt.Fprintln(os.Stderr, "connect:", err)
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	run, sidecar, suite string
	trace               bool
}

func runAll(ctx context.Context, hops string, o options) error {
	dir, err := os.MkdirTemp("", "outrigger-connect")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.sidecar == "" {
		o.sidecar = filepath.Join(dir, "sidecar")
		if err := programs.Build(ctx, dir, "cmd/sidecar"); err != nil {
			return err
		}
	}
	if o.suite, err = suite(ctx); err != nil {
		return err
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(features), 0o600); err != nil {
		return err
	}
	var direct *outcome
	failed := false
	for _, text := range strings.Split(hops, ",") {
		n, err := parseWay(text)
		if err != nil {
			return err
		}
		began := time.Now()
		got, err := runSuite(ctx, config, n, o)
		if err != nil {
			return fmt.Errorf("through %s: %w", n, err)
		}
		if direct == nil {
			direct = got
		}
		differ := got.differs(direct)
		if n.web {
			differ = slices.DeleteFunc(differ, notTranslated.MatchString)
		}
		fmt.Printf("through %s: %d of %d cases pass, %d end otherwise than in the first run (%.0f s)\n",
			n, got.passed, got.total, len(differ), time.Since(began).Seconds())
		for _, name := range differ {
			fmt.Println("  " + name)
		}
		if len(differ) > 0 || o.trace {
			fmt.Println(got.text)
		}
		failed = failed || len(differ) > 0
	}
	if failed {
		return errors.New("not the results of a direct connection")
	}
	return nil
}

// way is what is between client and server.
type way struct {
	sidecars int
	web      bool
	text     string // as on the command line
}

func parseWay(text string) (way, error) {
	if text == "web" {
		return way{1, true, text}, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 9 {
		return way{}, fmt.Errorf("%q is no number of sidecars", text)
	}
	return way{n, false, text}, nil
}

func (w way) String() string {
	if w.web {
		return "a sidecar that translates gRPC-Web"
	}
	return fmt.Sprintf("%d sidecars", w.sidecars)
}

// notTranslated are cases over HTTP/1 that are no calls of gRPC-Web, and so do not
// reach a server that speaks gRPC over HTTP/2 only.
var notTranslated = regexp.MustCompile(`Unexpected Requests/HTTPVersion:1/.*/unexpected-(content-type|verb)$`)

// features is what the suite is to run. HTTP/3 is not proxied.
const features = `features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  codecs: [CODEC_PROTO, CODEC_JSON]
  compressions: [COMPRESSION_IDENTITY, COMPRESSION_GZIP]
  supportsHalfDuplexBidiOverHttp1: true
`

// suite is the folder of the suite's programs, which are installed if need be.
func suite(ctx context.Context) (string, error) {
	const script = "test/peers/connectconformance"
	if out, err := exec.CommandContext(ctx, script, "install").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s install (run this in the top folder of the repository): %w\n%s", script, err, out)
	}
	out, err := exec.CommandContext(ctx, script, "path").Output()
	return filepath.Dir(string(bytes.TrimSpace(out))), err
}

// outcome is how a run ended.
type outcome struct {
	total, passed int
	failed        map[string]bool
	text          string
}

var (
	totals = regexp.MustCompile(`(?m)^(\d+) passed, (\d+) failed`)
	failed = regexp.MustCompile(`(?m)^FAILED: (.*?):?$`)
)

func runSuite(ctx context.Context, config string, through way, o options) (*outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, suiteLimit)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argv := []string{"--conf", config, "--mode", "server"}
	if o.run != "" {
		argv = append(argv, "--run", o.run)
	}
	if o.trace {
		argv = append(argv, "--trace")
	}
	argv = append(argv, "--")
	if through.sidecars > 0 {
		argv = append(argv, self, behindCommand, through.text, o.sidecar)
	}
	argv = append(argv, filepath.Join(o.suite, "referenceserver"))
	cmd := exec.CommandContext(ctx, filepath.Join(o.suite, "connectconformance"), argv...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	m := totals.FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("no result: %w\n%s", err, out)
	}
	got := &outcome{failed: map[string]bool{}, text: string(out)}
	got.passed, _ = strconv.Atoi(string(m[1]))
	bad, _ := strconv.Atoi(string(m[2]))
	got.total = got.passed + bad
	for _, m := range failed.FindAllSubmatch(out, -1) {
		got.failed[string(m[1])] = true
	}
	if len(got.failed) != bad {
		return nil, fmt.Errorf("%d failed by their number and %d by their names\n%s", bad, len(got.failed), out)
	}
	return got, nil
}

// differs lists the cases that fail in one of both only.
func (o *outcome) differs(direct *outcome) []string {
	var list []string
	for name := range maps.Keys(o.failed) {
		if !direct.failed[name] {
			list = append(list, name)
		}
	}
	for name := range maps.Keys(direct.failed) {
		if !o.failed[name] {
			list = append(list, "(passes) "+name)
		}
	}
	if o.total != direct.total {
		list = append(list, fmt.Sprintf("%d cases, not %d", o.total, direct.total))
	}
	slices.Sort(list)
	return list
}
