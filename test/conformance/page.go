// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
)

// The table stands between these lines; the rest of the page is written by hand.
const (
	begin = "<!-- rows: written by go run ./test/conformance -->\n"
	end   = "<!-- end of rows -->\n"
)

// notRun is the result of a row that never was.
const notRun = "not run yet"

// parse reads the results of the rows that the page has.
func parse(text string) map[string]string {
	results := map[string]string{}
	_, table, _ := strings.Cut(text, begin)
	table, _, _ = strings.Cut(table, end)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) < 5 {
			continue
		}
		results[strings.TrimSpace(cells[0])] = strings.TrimSpace(cells[len(cells)-1])
	}
	return results
}

// render puts the rows with their results into the page.
func render(text string, results map[string]string) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", errors.New(page + ": the lines that mark the table are missing")
	}
	var b strings.Builder
	section := ""
	for _, r := range rows {
		if r.section != section {
			section = r.section
			fmt.Fprintf(&b, "\n### %s\n\n| row | what | bar | command | result |\n|---|---|---|---|---|\n", section)
		}
		result := results[r.id]
		if result == "" {
			result = notRun
		}
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` | %s |\n", r.id, r.what, r.bar, strings.ReplaceAll(r.command, "|", `\|`), result)
	}
	return before + begin + b.String() + "\n" + end + after, nil
}
