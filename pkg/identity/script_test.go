// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what scripts print into testdata")

// machine runs one script about an authority on a virtual clock.
type machine struct {
	t      *testing.T
	now    time.Time
	a      *memory
	given  map[string]*Issuer
	shown  map[string][]*x509.Certificate // certificates by the name that the script gives
	bundle map[string]*Bundle
}

// do runs a command and returns what it prints.
func (m *machine) do(words []string) (string, error) {
	switch words[0] {
	case "own", "given", "restart":
		var g *Issuer
		if len(words) > 1 {
			g = m.outside(words[1])
		}
		if words[0] != "restart" {
			m.a = &memory{}
		}
		m.a.reopen(m.t, m.now, g)
		return m.state(), nil
	case "replace":
		return m.then(m.a.Replace(m.now, m.outside(words[1])))
	case "rotate":
		overlap := time.Duration(0)
		if len(words) > 1 {
			overlap = duration(m.t, words[1])
		}
		return m.then(m.a.Rotate(m.now, overlap))
	case "wait":
		m.now = m.now.Add(duration(m.t, words[1]))
		_, err := m.a.Step(m.now)
		return m.then(err)
	case "step": // at the time that the last step named, at the latest
		next, err := m.a.Step(m.now)
		if err == nil {
			m.now = next
			_, err = m.a.Step(m.now)
		}
		return m.then(err)
	case "issue":
		m.shown[words[1]] = m.a.leaf(m.t, m.now, "orders")
		m.bundle[words[1]] = m.a.Bundle()
		return "", nil
	case "accepts": // who holds the bundle of "now" or of a certificate, and what it makes of the others
		b := m.a.Bundle()
		if words[1] != "now" {
			b = m.bundle[words[1]]
		}
		var out []string
		for _, name := range words[2:] {
			_, err := VerifyPeer(m.now, m.shown[name], b.Pool, domain)
			verdict := "yes"
			if err != nil {
				verdict = string(ReasonOf(err))
			}
			out = append(out, name+": "+verdict)
		}
		return strings.Join(out, ", "), nil
	case "disk":
		m.a.fail = nil
		if words[1] == "full" {
			m.a.fail = errors.New("no space left on device")
		}
		return "", nil
	}
	return "", fmt.Errorf("no command %q", words[0])
}

func (m *machine) then(err error) (string, error) {
	if err != nil {
		return "", err
	}
	return m.state(), nil
}

func (m *machine) outside(name string) *Issuer {
	if m.given[name] == nil {
		m.given[name] = newGiven(m.t, m.now, name, 1000*time.Hour)
	}
	return m.given[name]
}

func (m *machine) state() string {
	s := m.a.phases() + " at " + m.now.Sub(start).String()
	if w := m.a.Warning(); w != "" {
		s += "\nwarning: " + w
	}
	return s
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRotationByScript plays testdata/rotation: commands, "----", what they printed.
func TestRotationByScript(t *testing.T) {
	files, err := filepath.Glob("testdata/rotation/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m := &machine{t: t, now: start, given: map[string]*Issuer{}, shown: map[string][]*x509.Certificate{}, bundle: map[string]*Bundle{}}
			got := m.play(string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s prints otherwise now:\n%s", file, got)
			}
		})
	}
}

func (m *machine) play(text string) string {
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		commands, _, _ := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n----\n")
		for line := range strings.Lines(commands) {
			line, _, _ = strings.Cut(line, "#")
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			s, err := m.do(words)
			if errors.Is(err, ErrRotating) {
				err = ErrRotating // without the fingerprint, which is another each time
			}
			if err != nil {
				s = "error: " + err.Error()
			}
			if s != "" {
				out.WriteString(s + "\n")
			}
		}
	}
	return out.String()
}
