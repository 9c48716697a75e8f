// SPDX-License-Identifier: Apache-2.0

// Package archtest holds the rules of the architecture as tests: which package may
// import which, what each program links, how long a file may be, and what data-path
// code must not contain. rules.go and source.go are tables with a reason for each
// row; a rule that turns out to be wrong is changed there, with its reason, and in
// docs/ARCHITECTURE.md.
//
// It reads source files and what `go list` says; it runs nothing of the product.
// Each test lists all its violations at once.
package archtest
