// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
)

// FreeAddress is a loopback address that nobody listens on, and another one each time.
func FreeAddress(t testing.TB) string {
	t.Helper()
	list, err := freeport.Addresses(1)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}
