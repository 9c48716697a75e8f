// SPDX-License-Identifier: Apache-2.0

//go:build !race

package mtls_test

const raceEnabled = false
