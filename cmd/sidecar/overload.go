// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime/debug"

	"github.com/outrigger-mesh/outrigger/pkg/overload"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// softLimitPercent is the part of the container's memory that garbage may fill before it is
// collected all the time: what is beyond is killed by the kernel.
const softLimitPercent = 95

// overloadSettings are the bootstrap's, or the defaults for the memory that there is.
func overloadSettings(boot *decode.BootstrapConfig) resource.Overload {
	limit, kernel := overload.MemoryLimit()
	if limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(limit / 100 * softLimitPercent))
	}
	if boot.Overload != nil {
		return *boot.Overload
	}
	return overload.Defaults(limit, kernel)
}
