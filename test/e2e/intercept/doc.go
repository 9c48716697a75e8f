// SPDX-License-Identifier: Apache-2.0

// Package intercept tests `sidecar intercept` in network namespaces: real rules,
// real connections, and what a listener learns of them.
package intercept
