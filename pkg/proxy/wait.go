// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// waiting is what an exchange knows of a filter that answered Wait. The turns
// survive the exchange, so that a continuation of one never resumes the next.
type waiting struct {
	on      bool
	hook    int    // index of the filter
	turn    uint64 // of the continuation that holds
	resumed uint64 // the turn that was resumed last
}

// Turn implements filter.Waiter.
func (x *exchange) Turn() uint64 {
	x.wait.turn++
	return x.wait.turn
}

// Resume implements filter.Waiter.
func (x *exchange) Resume(turn uint64) bool {
	if turn != x.wait.turn || turn == x.wait.resumed {
		return false
	}
	x.wait.resumed = turn
	if x.wait.on { // else the hook has not answered yet: see stop
		x.w.wake(x)
	}
	return true
}

// stop takes a verdict that is not Next, of the i-th filter.
func (x *exchange) stop(v filter.Verdict, i int) filter.Verdict {
	if v == filter.Reply {
		x.replier = x.manager.filters[x.w.index][i].reply
	}
	if v == filter.Wait {
		x.wait.on, x.wait.hook = true, i
		if x.wait.resumed == x.wait.turn {
			x.w.wake(x)
		}
	}
	return v
}

// goOn asks the filter that waits, once it was resumed; other events find the
// exchange waiting still.
func (x *exchange) goOn() filter.Verdict {
	if x.wait.resumed != x.wait.turn {
		return filter.Wait
	}
	x.wait.on = false
	x.wait.turn++
	x.lastActivity = x.w.loop.Now()
	i := x.wait.hook
	if h := x.manager.filters[x.w.index][i].resume; h != nil {
		return x.stop(h.OnResume(&x.Exchange), i)
	}
	return filter.Next
}

// goOnRequest is goOn on the side of the request. The route's timeout is the
// upstream's and starts now; the cluster may have gone meanwhile.
func (x *exchange) goOnRequest() filter.Verdict {
	if v := x.goOn(); v != filter.Next {
		return v
	}
	x.requestAt = x.w.loop.Now()
	if x.on != nil && !x.answered {
		if x.on = x.w.clusterOn(x.cluster); x.on == nil {
			return x.reply(&failureNoCluster)
		}
	}
	return filter.Next
}

// goOnResponse is goOn on the side of the response, whose rest may have broken
// off meanwhile: then nothing of it has been sent, and it is as if none had come.
func (x *exchange) goOnResponse() filter.Verdict {
	if a := x.main; a.failed != nil {
		x.wait.on = false
		f := &failureReset
		if a.failed.Flag == record.UR {
			f = &failureRemoteReset
		}
		return x.attemptFailed(a, f)
	}
	if v := x.goOn(); v != filter.Next {
		return v
	}
	x.holdResponse(x.down.full())
	return filter.Next
}

// voidWait ends a wait with its exchange.
func (x *exchange) voidWait() {
	x.wait.on = false
	x.wait.turn++
}
