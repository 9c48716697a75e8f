// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if run := children[os.Getenv(childVariable)]; run != nil {
		os.Exit(run())
	}
	goleak.VerifyTestMain(m)
}

// childVariable names what a re-executed test binary does in place of tests:
// things that hold for a whole process, such as a limit on descriptors.
const childVariable = "OUTRIGGER_REACTOR_CHILD"
