// SPDX-License-Identifier: Apache-2.0

// Package freeporttest is freeport for tests: what is not found ends the test.
package freeporttest

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
)

// Address is a loopback address, 127.0.0.1:PORT, that nobody listens on, and another one
// each time.
func Address(t testing.TB) string {
	t.Helper()
	list, err := freeport.Addresses(1)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}
