// SPDX-License-Identifier: Apache-2.0

// Package docs holds the tests of what pages in docs claim of the code: a table of
// limits that has another default than the constant, or a table of attacks that
// names a test which is not there, fails here.
package docs
