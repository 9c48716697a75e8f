// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/freeport/freeporttest"
)

// FreeAddress is a loopback address that nobody listens on, and another one each time.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return freeporttest.Address(t)
}
