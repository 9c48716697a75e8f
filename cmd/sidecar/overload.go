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
	o := overload.Defaults(limit, kernel)
	if boot.Overload != nil {
		o = *boot.Overload
	}
	if limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		// What the kernel needs for the group comes off while the sidecar runs.
		o.HeapLimit, o.HeapLimitFile = limit/100*softLimitPercent, kernel
		debug.SetMemoryLimit(int64(o.HeapLimit))
	}
	return o
}
