// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt with what the decoders do now")

// TestScripts runs testdata/*.txt. A case is a "# name" line, a command, the
// bytes that a peer sends, "----", and the events they give. Each line of bytes
// ends with CRLF unless it ends with a lone backslash, "." is an empty line, and
// escapes are Go's. The
// bytes are fed cut in many ways, always with the same events.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
		input, want, ok := strings.Cut(block+"\n", "----\n")
		lines := strings.Split(strings.TrimSuffix(input, "\n"), "\n")
		if !ok || len(lines) < 2 || !strings.HasPrefix(lines[0], "# ") {
			t.Fatalf("%s: not a case:\n%s", file, block)
		}
		got := ""
		t.Run(strings.TrimPrefix(lines[0], "# "), func(t *testing.T) {
			got = runCase(t, lines[1], wireBytes(t, lines[2:]))
			if !*update && got != want {
				t.Errorf("events:\n%swant:\n%s", got, want)
			}
		})
		out.WriteString(input + "----\n" + got + "\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(strings.TrimSuffix(out.String(), "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// wireBytes makes bytes of script lines.
func wireBytes(t *testing.T, lines []string) []byte {
	var b strings.Builder
	for _, line := range lines {
		end := "\r\n"
		if line == "." {
			line = ""
		}
		if strings.HasSuffix(line, `\`) && !strings.HasSuffix(line, `\\`) {
			line, end = strings.TrimSuffix(line, `\`), ""
		}
		// REPEAT(x,n) is x n times.
		for {
			i := strings.Index(line, "REPEAT(")
			if i < 0 {
				break
			}
			j := i + strings.IndexByte(line[i:], ')')
			what, n, _ := strings.Cut(line[i+len("REPEAT("):j], ",")
			count, err := strconv.Atoi(n)
			if err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			line = line[:i] + strings.Repeat(what, count) + line[j+1:]
		}
		s, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		b.WriteString(s + end)
	}
	return []byte(b.String())
}

// runCase feeds the bytes cut in every way and returns the events.
func runCase(t *testing.T, command string, in []byte) string {
	args := strings.Fields(command)
	whole := ""
	for i, cut := range someCuts(len(in)) {
		p, finish := newCasePeer(t, args)
		feedCut(p, in, cut)
		finish()
		got := p.result()
		if i == 0 {
			whole = got
		} else if got != whole {
			t.Fatalf("cut at %v:\n%swhole:\n%s", cut, got, whole)
		}
	}
	return whole
}

var methods = map[string]codec.Method{
	"GET": codec.MethodGet, "HEAD": codec.MethodHead, "POST": codec.MethodPost, "CONNECT": codec.MethodConnect,
}

func newCasePeer(t *testing.T, args []string) (p *peer, finish func()) {
	var (
		l       Limits
		expect  []codec.Method
		upgrade bool
		eof     bool
	)
	for _, a := range args[1:] {
		key, value, _ := strings.Cut(a, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "head":
			l.HeadBytes = n
		case "count":
			l.HeaderCount = n
		case "target":
			l.TargetBytes = n
		case "ext":
			l.ChunkExtBytes = n
		case "trailer":
			l.TrailerBytes = n
		case "body":
			l.BodyBytes = int64(n)
		case "reject-underscores":
			l.Underscores = RejectUnderscores
		case "drop-underscores":
			l.Underscores = DropUnderscores
		case "upgrade":
			upgrade = true
		case "eof":
			eof = true
		default:
			m, ok := methods[key]
			if !ok {
				t.Fatalf("unknown argument %q", a)
			}
			expect = append(expect, m)
		}
	}
	switch args[0] {
	case "request":
		return newRequestPeer(l), func() {}
	case "response":
		var d *ResponseDecoder
		p, d = newResponsePeer(l, upgrade, expect...)
		return p, func() {
			if p.err == nil && eof {
				if err := d.EOF(&p.recorder); err != nil {
					p.err = err
				}
			}
			if p.err == nil && d.Reusable() {
				p.flushBody()
				p.out.WriteString("reusable\n")
			}
		}
	}
	t.Fatalf("unknown command %q", args[0])
	return nil, nil
}
