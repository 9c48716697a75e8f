// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// resultsEnv names the file that takes what was measured, one line a figure:
// CONFORMANCE row figure.
const resultsEnv = "OUTRIGGER_CONFORMANCE"

// results is the open file, nil for none; guarded by resultsMu.
var (
	resultsMu sync.Mutex
	results   *os.File
)

func openResults() (err error) {
	if path := os.Getenv(resultsEnv); path != "" {
		results, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // for others to read
	}
	return err
}

func closeResults() error {
	if results == nil {
		return nil
	}
	return results.Close()
}

// Conformance notes what a test measured for a row of the robustness plan, or
// for another name of one word.
func Conformance(t testing.TB, row, format string, args ...any) {
	t.Helper()
	line := "CONFORMANCE " + row + " " + fmt.Sprintf(format, args...)
	t.Log(line)
	resultsMu.Lock()
	defer resultsMu.Unlock()
	if results == nil || t.Failed() {
		return
	}
	if _, err := fmt.Fprintln(results, line); err != nil {
		t.Error(err)
	}
}
