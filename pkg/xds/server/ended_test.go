// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// A timer that looks at shared node ids may hold on to a stream for long after its end.
func TestAStreamThatHasEndedHoldsOnToNothing(t *testing.T) {
	req := &discoveryv3.DiscoveryRequest{ResourceNames: []string{"a"}}
	s := &Server{cfg: Config{Clock: time.Now}, pending: map[any]*subscription{}}
	st := &stream{subs: []*subscription{nil, {}}, request: req}
	s.pending[req] = st.subs[1]
	s.end(st)
	if st.subs[1] != nil || st.request != nil || len(s.pending) != 0 {
		t.Errorf("%v, %v and %d pending", st.subs, st.request, len(s.pending))
	}
}

// An id that a whole fleet has costs no more than a look at each of its streams.
func TestPairsAreSettledWhenNoMoreIsTold(t *testing.T) {
	rec := &nodeRecord{told: make([][2]claim, maxSharedPairs)}
	a, b, fresh := &stream{node: rec, shared: true}, &stream{node: rec, shared: true}, &stream{node: rec}
	if !a.settled(b) || a.settled(fresh) || fresh.settled(a) {
		t.Error("what is settled is not")
	}
	if rec.told = rec.told[1:]; a.settled(b) {
		t.Error("there is room to tell of more")
	}
}
