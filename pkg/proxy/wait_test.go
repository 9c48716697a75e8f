// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// waitTime is how long the test's filters wait.
const waitTime = 100 * time.Millisecond

// waitLog is what the filters of a test were called with.
type waitLog struct{ calls, resumes []string }

// waiter is a filter that waits on a timer where the request's header of its name
// says so: on the side "request" or "response", and then "next", "reply", "panic",
// "again" (waits once more), "sync" (resumes before it answers) or "deaf" (waits
// for nothing).
type waiter struct {
	name string
	w    filter.Worker
	log  *waitLog
}

// waited is the state of one wait.
type waited struct {
	f     *waiter
	timer reactor.Timer
	goOn  filter.Continuation
	then  string
}

func (p *waited) OnTimer(*reactor.Timer) {
	p.f.log.resumes = append(p.f.log.resumes, fmt.Sprint(p.f.name, " ", p.goOn.Resume()))
	if p.goOn.Resume() {
		p.f.log.resumes = append(p.f.log.resumes, p.f.name+" twice")
	}
}

func (f *waiter) called(what string) { f.log.calls = append(f.log.calls, f.name+"."+what) }

func (f *waiter) at(x *filter.Exchange, side string) filter.Verdict {
	f.called(side)
	for what := range strings.SplitSeq(string(x.Request.Get("x-"+f.name)), ",") {
		on, then, _ := strings.Cut(what, "-")
		if on != side || x.Slots[f.w.Slot] != nil {
			continue
		}
		p := &waited{f: f, then: then}
		if then != "deaf" {
			p.goOn = x.Continuation()
		}
		p.timer.Target = p
		x.Slots[f.w.Slot] = p
		switch then {
		case "deaf":
		case "sync":
			p.goOn.Resume()
		default:
			f.w.Loop.Schedule(&p.timer, waitTime)
		}
		return filter.Wait
	}
	return filter.Next
}

func (f *waiter) OnRequest(x *filter.Exchange) filter.Verdict  { return f.at(x, "request") }
func (f *waiter) OnResponse(x *filter.Exchange) filter.Verdict { return f.at(x, "response") }

func (f *waiter) OnRequestData(_ *filter.Exchange, b []byte, last bool) {
	f.called(fmt.Sprintf("upload %d %t", len(b), last))
}

func (f *waiter) OnResume(x *filter.Exchange) filter.Verdict {
	f.called("resume")
	p := x.Slots[f.w.Slot].(*waited)
	switch p.then {
	case "reply":
		x.Local = filter.LocalReply{Status: 403, Body: []byte("denied"), Details: "denied"}
		return filter.Reply
	case "panic":
		panic("asked to")
	case "again":
		p.then, p.goOn = "next", x.Continuation()
		f.w.Loop.Schedule(&p.timer, waitTime)
		return filter.Wait
	}
	x.Slots[f.w.Slot] = nil
	return filter.Next
}

func (f *waiter) OnDone(*filter.Exchange) { f.called("done") }

// waitRig is a simulated proxy with the filters a, b and c.
func waitRig(t *testing.T, edit func(*resource.Snapshot)) (*simRig, *waitLog) {
	log := new(waitLog)
	var specs []filter.Spec
	for _, name := range []string{"a", "b", "c"} {
		specs = append(specs, filter.Spec{Name: name, TypeURL: name, Parse: func([]byte) (any, error) { return nil, nil },
			New: func(_ any, w filter.Worker) filter.Filter { return &waiter{name: name, w: w, log: log} }})
	}
	r := newSimWith(t, filter.NewRegistry(specs...), 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		for _, f := range specs {
			m := s.Listeners["l"].FilterChains[0].HTTP
			m.Filters = append(m.Filters, resource.HTTPFilter{Name: f.Name, TypeURL: f.TypeURL})
		}
		if edit != nil {
			edit(s)
		}
	})
	return r, log
}

// echo answers every request with the same.
func (r *simRig) echo(answer string) (heads *int) {
	heads = new(int)
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
		*heads++
		p.Write([]byte(answer))
	})
	return heads
}

const (
	plainAnswer   = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
	chunkedAnswer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n"
	emptyAnswer   = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
)

func TestAFilterThatWaitsGoesOnWhereItStopped(t *testing.T) {
	const up = "a.upload 4 true b.upload 4 true c.upload 4 true "
	const done = " a.done b.done c.done"
	for _, c := range []struct {
		name, headers, answer string
		calls                 string
		status, ends          string
		waits                 int // times of waitTime
	}{
		{"nobody waits", "", plainAnswer,
			"a.request b.request c.request " + up + "c.response b.response a.response" + done, "200", "hello", 0},
		{"the request waits", "x-b: request-next\r\n", plainAnswer,
			"a.request b.request b.resume c.request " + up + "c.response b.response a.response" + done, "200", "hello", 1},
		{"the response waits", "x-b: response-next\r\n", plainAnswer,
			"a.request b.request c.request " + up + "c.response b.response b.resume a.response" + done, "200", "hello", 1},
		{"a response with a trailer waits", "x-c: response-next\r\n", chunkedAnswer,
			"a.request b.request c.request " + up + "c.response c.resume b.response a.response" + done, "200", "0\r\nx-t: 1\r\n\r\n", 1},
		{"a response without a body waits", "x-a: response-next\r\n", emptyAnswer,
			"a.request b.request c.request " + up + "c.response b.response a.response a.resume" + done, "200", "\r\n\r\n", 1},
		{"two in a row wait", "x-a: request-next\r\nx-b: request-next\r\n", plainAnswer,
			"a.request a.resume b.request b.resume c.request " + up + "c.response b.response a.response" + done, "200", "hello", 2},
		{"two in a row wait on both sides", "x-b: request-next,response-next\r\nx-c: request-next,response-next\r\n", plainAnswer,
			"a.request b.request b.resume c.request c.resume " + up + "c.response c.resume b.response b.resume a.response" + done, "200", "hello", 4},
		{"one waits twice", "x-a: request-again\r\nx-c: response-again\r\n", plainAnswer,
			"a.request a.resume a.resume b.request c.request " + up + "c.response c.resume c.resume b.response a.response" + done, "200", "hello", 4},
		{"one has its answer at once", "x-b: request-sync,response-sync\r\n", plainAnswer,
			"a.request b.request b.resume c.request " + up + "c.response b.response b.resume a.response" + done, "200", "hello", 0},
		{"the request is refused", "x-b: request-reply\r\n", plainAnswer,
			"a.request b.request b.resume" + done, "403", "denied", 1},
		{"the response is refused", "x-b: response-reply\r\n", plainAnswer,
			"a.request b.request c.request " + up + "c.response b.response b.resume c.response b.response a.response" + done, "403", "denied", 1},
		{"the resumed filter panics", "x-b: request-panic\r\n", plainAnswer,
			"a.request b.request b.resume" + done, "", "", 1},
		{"the filter resumed with a response panics", "x-b: response-panic\r\n", plainAnswer,
			"a.request b.request c.request " + up + "c.response b.response b.resume" + done, "", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, log := waitRig(t, nil)
			r.echo(c.answer)
			conn := r.dial()
			start := r.world.Now()
			conn.Write([]byte("POST / HTTP/1.1\r\nHost: x\r\n" + c.headers + "Content-Length: 4\r\n\r\nbody"))
			r.until("the end", 10*time.Second, func() bool { return strings.HasSuffix(strings.Join(log.calls, " "), done) })
			if took := r.world.Now() - start; took < time.Duration(c.waits)*waitTime || took > time.Duration(c.waits)*waitTime+20*time.Millisecond {
				t.Errorf("took %v", took)
			}
			r.until("the answer", time.Second, func() bool { return conn.EOF || c.status != "" && bytes.HasSuffix(conn.Received, []byte(c.ends)) })
			if got := strings.Join(log.calls, " "); got != c.calls {
				t.Errorf("calls:\n got %s\nwant %s", got, c.calls)
			}
			if got := string(conn.Received); c.status == "" && got != "" || !strings.HasPrefix(strings.TrimPrefix(got, "HTTP/1.1 "), c.status) {
				t.Errorf("answered %q", got)
			}
			if i := slices.IndexFunc(log.resumes, func(s string) bool { return !strings.HasSuffix(s, "true") }); i >= 0 || len(log.resumes) != c.waits {
				t.Errorf("resumes: %q", log.resumes)
			}
			if c.status == "200" { // the connection serves the next request
				conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
				r.until("the next answer", time.Second, func() bool { return bytes.Count(conn.Received, []byte("HTTP/1.1 200")) == 2 })
			}
			if panics := r.p.workers[0].stats.panics; (panics == 1) != strings.Contains(c.headers, "panic") {
				t.Errorf("%d panics", panics)
			}
			r.world.Run(time.Second)
			r.settled()
		})
	}
}

// What ends an exchange in a wait is told to the filters once, and what they have
// of it wakes nobody: not even the request that got its memory.
func TestAnExchangeMayEndWhileAFilterWaits(t *testing.T) {
	for _, c := range []struct {
		name, wait string
		edit       func(*resource.Snapshot)
		end        func(*sim.Peer)
		status     string
		body       string // of the request
	}{
		{"the client resets, of a request", "request-next", nil, (*sim.Peer).Reset, "", ""},
		{"the client resets, of a response", "response-next", nil, (*sim.Peer).Reset, "", ""},
		{"the client goes, of a request", "request-next", nil, (*sim.Peer).Close, "", ""},
		{"the client goes, of a response", "response-next", nil, (*sim.Peer).CloseWrite, "", ""},
		{"idle for too long, of a request", "request-next", func(s *resource.Snapshot) {
			s.Listeners["l"].FilterChains[0].HTTP.StreamIdleTimeout = waitTime / 2
		}, nil, "504", ""},
		{"idle for too long, of a response", "response-next", func(s *resource.Snapshot) {
			s.Listeners["l"].FilterChains[0].HTTP.StreamIdleTimeout = waitTime / 2
		}, nil, "504", ""},
		{"the route's idle time, of a request that is not whole", "request-next", func(s *resource.Snapshot) {
			a := s.Routes["r"].VirtualHosts[0].Routes[0].Action
			a.HasIdleTimeout, a.IdleTimeout = true, waitTime/2
		}, nil, "408", "Content-Length: 4\r\n\r\n"},
		{"the longest duration, of a request", "request-next", func(s *resource.Snapshot) {
			s.Listeners["l"].FilterChains[0].HTTP.MaxStreamDuration = waitTime / 2
		}, nil, "504", ""},
		{"the route's timeout, of a response", "response-next", func(s *resource.Snapshot) {
			s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = waitTime / 2
		}, nil, "504", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, log := waitRig(t, c.edit)
			r.echo(plainAnswer)
			conn := r.dial()
			if c.body == "" {
				c.body = "\r\n"
			}
			conn.Write([]byte("POST / HTTP/1.1\r\nHost: x\r\nX-B: " + c.wait + "\r\n" + c.body))
			side, _, _ := strings.Cut(c.wait, "-")
			r.until("the wait", time.Second, func() bool { return slices.Contains(log.calls, "b."+side) })
			if c.end != nil {
				c.end(conn)
			}
			r.until("the end", time.Second, func() bool { return slices.Contains(log.calls, "c.done") })
			if len(log.resumes) != 0 {
				t.Error("the exchange went on")
			}
			r.until("the answer", time.Second, func() bool { return c.status == "" || len(conn.Received) > 0 })
			if got := string(conn.Received); c.status == "" && got != "" || !strings.HasPrefix(strings.TrimPrefix(got, "HTTP/1.1 "), c.status) {
				t.Errorf("answered %q", got)
			}
			// Another request waits for ever, in the memory of the first.
			if free := len(r.p.workers[0].exchanges.items); free != 1 {
				t.Fatalf("%d exchanges are free", free)
			}
			other := r.dial()
			other.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX-A: request-deaf\r\n\r\n"))
			r.until("the first one's timer", time.Second, func() bool { return len(log.resumes) > 0 })
			if len(r.p.workers[0].exchanges.items) != 0 && r.p.managers["test"].on[0].rqActive != 0 {
				t.Error("the second request did not get the memory of the first")
			}
			if slices.Contains(log.calls, "a.resume") || slices.Contains(log.calls, "b.resume") || log.resumes[0] != "b false" {
				t.Errorf("%q, %q", log.calls, log.resumes)
			}
			other.Reset()
			r.world.Run(time.Second)
			if n := r.p.slots["c"].spec.Load().lb.View().Hosts()[0].Stats.RqTimeout.Load(); n != 0 {
				t.Error("the endpoint is blamed for the filter's time")
			}
			for _, f := range []string{"a.done", "b.done", "c.done"} {
				if n := strings.Count(strings.Join(log.calls, " ")+" ", f+" "); n != 2 {
					t.Errorf("%s %d times for two requests", f, n)
				}
			}
			r.settled()
		})
	}
}

func TestAResponseThatBreaksOffWhileAFilterWaitsIsReplaced(t *testing.T) {
	r, log := waitRig(t, nil)
	r.serve("10.0.0.9:80", func(p *sim.Peer, _ string) {
		p.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"))
		r.world.At(waitTime/2, p.Reset)
	})
	conn := r.dial()
	conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX-B: response-next\r\n\r\n"))
	r.until("the answer", time.Second, func() bool { return len(conn.Received) > 0 })
	if !bytes.HasPrefix(conn.Received, []byte("HTTP/1.1 503")) || slices.Contains(log.calls, "b.resume") {
		t.Errorf("answered %q after %q", conn.Received, log.calls)
	}
	r.world.Run(time.Second)
	r.settled()
}

// The route's timeout is the upstream's: it runs once the filters are through.
func TestARequestsWaitDoesNotUseUpTheRoutesTimeout(t *testing.T) {
	r, _ := waitRig(t, func(s *resource.Snapshot) {
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = waitTime / 2
	})
	r.echo(plainAnswer)
	conn := r.dial()
	conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX-B: request-next\r\n\r\n"))
	r.until("the answer", time.Second, func() bool { return len(conn.Received) > 0 })
	if !bytes.HasPrefix(conn.Received, []byte("HTTP/1.1 200")) {
		t.Errorf("answered %q", conn.Received)
	}
}

func TestAClusterMayGoWhileAFilterWaits(t *testing.T) {
	r, log := waitRig(t, nil)
	conn := r.dial()
	conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nX-B: request-next\r\n\r\n"))
	r.until("the wait", time.Second, func() bool { return slices.Contains(log.calls, "b.request") })
	delete(r.snap.Clusters, "c")
	delete(r.snap.Assignments, "c")
	r.apply()
	r.until("the answer", time.Second, func() bool { return len(conn.Received) > 0 })
	if got := string(conn.Received); !strings.HasPrefix(got, "HTTP/1.1 503") || strings.Contains(got, "no healthy upstream") {
		t.Errorf("answered %q", got)
	}
}

// Bodies much longer than any buffer, both ways: their senders are stopped.
func TestABodyDoesNotGrowWhileAFilterWaits(t *testing.T) {
	const size = 1 << 20
	r, log := waitRig(t, nil)
	body := strings.Repeat("x", size)
	r.echo(fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", size, body))
	w := r.p.workers[0]
	conn := r.dial()
	fmt.Fprintf(peerWriter{conn}, "POST / HTTP/1.1\r\nHost: x\r\nX-B: request-next,response-next\r\ncontent-length: %d\r\n\r\n%s", size, body)
	held := func() (n int) {
		for d := w.downs.first; d != nil; d = d.next {
			if n += d.conn.Unconsumed() + d.conn.Buffered(); d.x != nil {
				n += len(d.x.body)
				if a := d.x.main; a != nil && a.up != nil && d.x.wait.on {
					n += a.up.(*upstreamConn).conn.Unconsumed()
				}
			}
		}
		return n
	}
	for _, side := range []string{"request", "response"} {
		r.until("the wait for the "+side, 10*time.Second, func() bool { return slices.Contains(log.calls, "b."+side) })
		resumed := len(log.resumes)
		most := 0
		r.until("the end of the wait", time.Second, func() bool {
			if len(log.resumes) == resumed {
				most = max(most, held())
			}
			return len(log.resumes) > resumed
		})
		if most == 0 || most > 256<<10 {
			t.Errorf("while the %s waits, %d bytes are held", side, most)
		}
	}
	r.until("the answer", 10*time.Second, func() bool { return len(conn.Received) > size })
	if !bytes.HasSuffix(conn.Received, []byte(body)) {
		t.Error("the body was changed")
	}
	r.world.Run(time.Second)
	r.settled()
}

type peerWriter struct{ p *sim.Peer }

func (w peerWriter) Write(b []byte) (int, error) {
	w.p.Write(b)
	return len(b), nil
}
