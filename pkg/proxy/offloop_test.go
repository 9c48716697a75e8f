// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"
	"time"
)

func TestRecordsAreDrainedOftenOnlyWhereARingWouldFill(t *testing.T) {
	for _, tc := range []struct {
		fill       float64
		wait, want time.Duration
	}{
		{0, drainEvery, drainCalm},
		{calmFill, drainCalm, drainCalm},
		{calmFill + .01, drainCalm, drainEvery},
		{calmFill / 5, drainEvery, drainCalm}, // as full a wait later
		{calmFill/5 + .01, drainEvery, drainEvery},
	} {
		if got := drainNext(tc.fill, tc.wait); got != tc.want {
			t.Errorf("%v filled in %v: got %v, want %v", tc.fill, tc.wait, got, tc.want)
		}
	}
}
