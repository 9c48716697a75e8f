// SPDX-License-Identifier: Apache-2.0

package broadcast

import "testing"

func TestASubscriberIsToldOnceOfWhatItHasNotLookedAt(t *testing.T) {
	var s Signal
	s.Send() // to nobody
	first, stop := s.Subscribe()
	second, stopSecond := s.Subscribe()
	defer stopSecond()
	told := func(ch <-chan struct{}) int {
		n := 0
		for len(ch) > 0 {
			<-ch
			n++
		}
		return n
	}
	if told(first) != 0 {
		t.Error("told of what was before it subscribed")
	}
	for range 3 {
		s.Send()
	}
	if a, b := told(first), told(second); a != 1 || b != 1 {
		t.Errorf("told %d and %d times, want once each", a, b)
	}
	stop()
	stop() // more than once is no harm
	s.Send()
	if a, b := told(first), told(second); a != 0 || b != 1 {
		t.Errorf("after the first has stopped: told %d and %d times", a, b)
	}
}
