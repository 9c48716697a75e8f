// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"runtime"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// NewRings makes the rings that the workers leave records in. They are most of an
// idle proxy's heap, and hardly ever used in full: a process that makes them
// before it decodes its configuration gets them fresh from the system, which backs
// them with memory only as they are used. What has been in use before would be
// cleared, and so resident.
func NewRings(workers int) []*record.Ring {
	rings := make([]*record.Ring, workersOf(workers))
	for i := range rings {
		rings[i] = record.NewRing(ringSlots, ringBytes)
	}
	return rings
}

func workersOf(n int) int {
	if n <= 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}
