// SPDX-License-Identifier: Apache-2.0

//go:build !meshdebug

package reactor

// ownerChecked: this is a -tags meshdebug build.
const ownerChecked = false

// owner asserts in debug builds that a loop's state is touched by its own
// goroutine only; here it is nothing.
type owner struct{}

func (*owner) claim() {}
func (*owner) check() {}
