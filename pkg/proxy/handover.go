// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// handOverEvery is how often a process that hands over looks for connections that have
// become idle.
const handOverEvery = 20 * time.Millisecond

// DuplicateSockets returns copies of all listening sockets for a successor; they are
// the caller's to close.
func (p *Proxy) DuplicateSockets() ([]reactor.SocketGroup, error) { return p.sockets.Duplicate() }

// Disown leaves the files of Unix sockets where they are at the end of this process: a
// successor listens there.
func (p *Proxy) Disown() { p.sockets.Disown() }

// StartAccepting ends Options.HoldAccepting: connections that wait in the backlogs are
// accepted, and the files of Unix sockets are this process's. Calls after the first do
// nothing.
func (p *Proxy) StartAccepting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.holding {
		return
	}
	p.holding = false
	p.sockets.Own()
	for _, l := range inOrder(p.listeners) {
		p.attach(l)
	}
}

// HandOver stops accepting, since a successor does on the same sockets, and lets what
// is under way end as Drain does, but for two things: connections that carry no
// request may stay for the whole of Options.DrainTime, and those of them that are of
// plaintext HTTP/1.1 and belong to a listener that the successor has are passed to
// give, which owns as many of them as it returns. When it fails, the others stay here,
// and none are given any more. HandOver returns when no connection is left, or with an
// error when ctx ends before. After AcceptAgain it goes on as Drain.
func (p *Proxy) HandOver(ctx context.Context, has func(listener string) bool, give func([]HandedConn) (int, error)) error {
	p.sockets.Disown()
	p.drainIdle.Store(int64(p.options.DrainTime))
	list := p.startDrain(DrainAll)
	for _, l := range list {
		p.detach(l)
	}
	ticker := time.NewTicker(handOverEvery)
	defer ticker.Stop()
	gives := true
	for {
		if gives {
			if err := p.giveIdle(has, give); err != nil {
				gives = false
				p.log.Error("the successor takes no connections: they are told to close", "error", err)
			}
		}
		if err := p.settled(); err != nil {
			return err
		}
		if activeOn(list) == 0 {
			return nil
		}
		select {
		case <-p.alone:
			p.reattach(list)
			return p.Drain(ctx, DrainAll)
		case <-ctx.Done():
			return fmt.Errorf("hand-over: %d connections left: %w", activeOn(list), context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// AcceptAgain tells HandOver that the successor has gone: what comes, and what waits for
// it in the backlogs, is served here as long as this process drains. Calls after the
// first do nothing.
func (p *Proxy) AcceptAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.alone:
	default:
		close(p.alone)
	}
}

// reattach undoes what HandOver has done to the listeners.
func (p *Proxy) reattach(list []*listener) {
	p.drainIdle.Store(int64(max(p.options.DrainIdle, 0)))
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range list {
		if p.listeners[l.name] == l {
			p.attach(l)
		}
	}
}

// settled waits until every worker has run what was posted to it before.
func (p *Proxy) settled() error {
	done := make(chan struct{})
	p.afterWorkers(func() { close(done) })
	select {
	case <-done:
		return nil
	case <-p.done:
		return errors.New("hand-over: the workers have ended")
	}
}

// giveIdle takes the connections out of the workers that a successor can go on with,
// and takes back what give does not want.
func (p *Proxy) giveIdle(has func(string) bool, give func([]HandedConn) (int, error)) error {
	lists := make([][]HandedConn, len(p.workers))
	for i, w := range p.workers {
		w.loop.PostOffLoop(func() { lists[i] = w.takeIdle(has) })
	}
	if err := p.settled(); err != nil {
		return err
	}
	idle := slices.Concat(lists...)
	if len(idle) == 0 {
		return nil
	}
	n, err := give(idle)
	if err != nil {
		p.AdoptOffLoop(idle[n:])
	}
	return err
}

// AdoptOffLoop goes on with connections of a predecessor, shared out among the workers.
// They are the proxy's from here on: one that it cannot go on with is closed.
func (p *Proxy) AdoptOffLoop(list []HandedConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range list {
		h := list[i]
		w := p.workers[p.adopted%len(p.workers)]
		p.adopted++
		l := p.listeners[h.Listener]
		w.loop.PostOffLoop(func() { w.takeOver(l, h) })
	}
}

// AwaitTurn waits until every worker has run what it had to do when AwaitTurn was called,
// and returns how many have not when ctx ends: 0 where all make progress.
func (p *Proxy) AwaitTurn(ctx context.Context) (stuck int) {
	done := make(chan struct{}, len(p.workers))
	for _, w := range p.workers {
		w.loop.PostOffLoop(func() { done <- struct{}{} })
	}
	for left := len(p.workers); left > 0; left-- {
		select {
		case <-done:
		case <-ctx.Done():
			return left
		}
	}
	return 0
}
