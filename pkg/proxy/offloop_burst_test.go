// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// A burst that fills half of a ring is not left until the reader looks by itself.
func TestABurstIsTakenBeforeTheNextLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Options{Workers: 1, Rings: []*record.Ring{record.NewRing(64, 1<<10)}})
		if err != nil {
			t.Fatal(err)
		}
		ring, began, stop := p.options.Rings[0], time.Now(), make(chan struct{})
		go p.readRecords(stop)
		for range 31 {
			ring.Push(&record.Record{})
		}
		if synctest.Wait(); ring.Len() != 31 {
			t.Errorf("%d records wait below half of a ring", ring.Len())
		}
		ring.Push(&record.Record{})
		if synctest.Wait(); ring.Len() != 0 {
			t.Errorf("%d records wait beyond half of a ring", ring.Len())
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("they were taken after %v", d)
		}
		close(stop)
	})
}
