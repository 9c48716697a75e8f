// SPDX-License-Identifier: Apache-2.0

// Command conformance runs what docs/CONFORMANCE.md lists and writes the results
// into it: every outside suite, client, peer and fault, each with its command.
//
//	go run ./test/conformance                # all rows; takes about ten minutes
//	go run ./test/conformance harness D5     # these rows; the others keep their results
//	go run ./test/conformance -l             # what there is
//	go run ./test/conformance -render        # after a change of rows.go
//	OUTRIGGER_SOAK=20m go run ./test/conformance -limit 40m D22
//
// The environment has precedence over what a row's command sets, so the last one is
// the long form of a row.
// A row is one entry in rows.go. Nothing is entered by hand: a figure comes from
// what the command printed, and a row that failed says so.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	page    = "docs/CONFORMANCE.md"
	maxNote = 240 // bytes of a figure
)

func main() {
	list := flag.Bool("l", false, "list the rows")
	only := flag.Bool("render", false, "run nothing: give the page the rows of the table, with the results that it has")
	limit := flag.Duration("limit", 15*time.Minute, "how long a row may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, flag.Args(), *limit, *list, *only); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only []string, limit time.Duration, list, renderOnly bool) error {
	for _, id := range only {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.id == id }) {
			return fmt.Errorf("no row %q; -l lists them", id)
		}
	}
	if list {
		for _, r := range rows {
			fmt.Printf("%-12s %s\n", r.id, r.what)
		}
		return nil
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("run this in the top folder of the repository: %w", err)
	}
	results := parse(string(text))
	if renderOnly {
		return write(string(text), results)
	}
	var failed []string
	for _, r := range rows {
		if len(only) > 0 && !slices.Contains(only, r.id) {
			continue
		}
		out, err := r.run(ctx, limit)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		results[r.id] = r.result(out, err, time.Now())
		fmt.Printf("%-12s %s\n", r.id, results[r.id])
		if err != nil {
			failed = append(failed, r.id)
			// A test that fails shows the logs of its processes last, however long.
			said := testLine.FindAll(out, -1)
			for _, line := range said[max(0, len(said)-mostSaid):] {
				fmt.Printf("%s\n", line)
			}
			fmt.Printf("%s\n", tail(out, 2<<10))
		}
		// At once, so that what was run is kept if a later row is cut off.
		if err := write(string(text), results); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(failed, ", "))
	}
	return nil
}

func write(text string, results map[string]string) error {
	updated, err := render(text, results)
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(updated), 0o644)
}

func (r row) run(ctx context.Context, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", withoutSet(r.command, os.LookupEnv))
	// A test that hangs tells where before the row is cut off.
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOFLAGS=%s -timeout=%v", os.Getenv("GOFLAGS"), limit*9/10))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(r.command, "go test") && !bytes.Contains(out, []byte("--- PASS")) {
		err = errors.New("no test ran")
	}
	return out, err
}

// withoutSet leaves out the variables that a command sets first and the environment has
// already.
func withoutSet(command string, lookup func(string) (string, bool)) string {
	kept := ""
	for {
		word, rest, _ := strings.Cut(command, " ")
		name, _, isVariable := strings.Cut(word, "=")
		if !isVariable {
			return kept + command
		}
		if _, set := lookup(name); !set {
			kept += word + " "
		}
		command = rest
	}
}

var (
	// What tests of whole processes write for this page; see test/e2e/mesh.
	forPage  = regexp.MustCompile(`(?m)CONFORMANCE \S+ (.+)$`)
	logLine  = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: ([^\[\n].*\d.*)$`)
	testLine = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: .*$`)
	passes   = regexp.MustCompile(`(?m)^\s*--- PASS: `)
)

// result is the cell: what the command printed of figures, and when.
func (r row) result(out []byte, err error, now time.Time) string {
	day := now.UTC().Format(time.DateOnly)
	if err != nil {
		return "**fails** (" + day + ")"
	}
	note := ""
	figure := r.figure
	if figure == nil && forPage.Match(out) {
		figure = forPage
	}
	if figure != nil {
		var parts []string
		for _, m := range figure.FindAllSubmatch(out, -1) {
			parts = append(parts, string(m[len(m)-1]))
		}
		note = strings.Join(parts, "; ")
	} else if m := logLine.FindAllSubmatch(out, -1); len(m) > 0 {
		note = string(m[len(m)-1][1])
	} else if n := len(passes.FindAll(out, -1)); n > 0 {
		note = fmt.Sprintf("%d tests and cases", n)
	}
	note = strings.NewReplacer("|", "/", "\n", " ").Replace(strings.ToValidUTF8(note, "?"))
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote], "") + "…"
	}
	return strings.TrimPrefix(note+"; holds ("+day+")", "; ")
}

// mostSaid is how many lines of a test that fails are shown, the last ones.
const mostSaid = 40

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
