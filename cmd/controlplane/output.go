// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, quiet(b.String()))
	return err
}

// jsonLine is JSON that others have encoded, as one line; what is no JSON is an error.
func jsonLine(data string) (string, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(data)); err != nil {
		return "", err
	}
	return quiet(b.String()), nil
}

// quiet escapes the control characters that JSON allows in strings, DEL and C1: to
// terminals they may be commands. JSON has them nowhere else.
func quiet(text string) string {
	noisy := func(r rune) bool { return r >= 0x7f && r < 0xa0 || r == utf8.RuneError }
	if strings.IndexFunc(text, noisy) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text { // a byte that is no UTF-8 comes as U+FFFD
		if noisy(r) && r != utf8.RuneError {
			fmt.Fprintf(&b, "\\u%04x", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// writeRaw writes JSON from the server, indented, or as YAML in the same order.
func writeRaw(w io.Writer, format string, data []byte) error {
	if format == "yaml" {
		out, err := yaml.JSONToYAML(data)
		if err != nil {
			return fmt.Errorf("as yaml: %w", err)
		}
		_, err = w.Write(out)
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return fmt.Errorf("as json: %w", err)
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

// age is a time as people say it: 5s, 3m, 2h, 4d.
func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	switch d := now.Sub(t); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(int(d.Seconds()), 0))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

var zeroTime time.Time

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
