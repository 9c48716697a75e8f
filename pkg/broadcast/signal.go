// SPDX-License-Identifier: Apache-2.0

package broadcast

import "sync"

// Signal says that something has changed. The zero value is ready; any goroutine may call
// its methods, with locks held too: they do not block.
type Signal struct {
	mu sync.Mutex
	// Guarded by mu.
	subscribers map[chan struct{}]struct{}
}

// Subscribe returns a channel that holds one when there was a change since it was last
// read from; stop ends that.
func (s *Signal) Subscribe() (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscribers == nil {
		s.subscribers = map[chan struct{}]struct{}{}
	}
	s.subscribers[ch] = struct{}{}
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscribers, ch)
	}
}

// Send tells all subscribers of a change.
func (s *Signal) Send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ch := range s.subscribers {
		select {
		case ch <- struct{}{}:
		default: // it has not looked since the last change
		}
	}
}
