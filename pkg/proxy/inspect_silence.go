// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// In protocols such as MySQL's and SMTP the server speaks first: a client that is
// waited for says nothing. So the wait for its first byte is short, and adapts: what
// speaks first was learned per destination from earlier connections, where the server
// did there is no wait, and where a client did that was given up on, the next one is
// waited for longer. What was learned expires, and every connection teaches anew.
//
// A silent client gets a chain for what is not recognised and nothing else, and only if that
// is a TCP proxy.

const (
	// maxLearned bounds the destinations that a worker knows.
	maxLearned = 1024
	// maxSilence is the longest wait for a client's first byte.
	maxSilence = 5 * time.Second
)

// destination is what is learned about.
type destination struct {
	listener *listener
	addr     netip.AddrPort
}

// habit is what was learned about a destination.
type habit struct {
	serverFirst bool
	wait        time.Duration // for a client's first byte
	until       int64
}

// habits are those that one worker has seen.
type habits map[destination]habit

// known returns what is known about a destination, the beginning where it is nothing.
func (h habits) known(d destination, now int64, wait time.Duration) habit {
	if k, ok := h[d]; ok && now < k.until {
		return k
	}
	return habit{wait: wait}
}

func (h habits) learn(d destination, k habit, now int64) {
	if _, ok := h[d]; !ok && len(h) >= maxLearned {
		h.forget(now)
	}
	h[d] = k
}

// forget makes room: what has expired goes, and if nothing has, any one.
func (h habits) forget(now int64) {
	for d, k := range h {
		if now >= k.until {
			delete(h, d)
		}
	}
	for d := range h {
		if len(h) < maxLearned {
			return
		}
		delete(h, d)
	}
}

// drop forgets the destinations of a listener that has gone.
func (h habits) drop(l *listener) {
	for d := range h {
		if d.listener == l {
			delete(h, d)
		}
	}
}

func (i *inspection) destination() destination {
	return destination{i.listener, i.conn.LocalAddr()}
}

// arm sets the timer of a connection that has just come: for silence, or for the end of
// looking.
func (i *inspection) arm() {
	if d := i.conf.res.Detection; d != nil && i.mayBeSilent() {
		wait := i.w.habits.known(i.destination(), i.w.loop.Now(), d.Wait).wait
		if limit := i.conf.res.DetectionTimeout; limit == 0 || wait < limit {
			i.waiting = true
			i.w.loop.Schedule(&i.timer, wait)
			return
		}
	}
	i.armEnd()
}

// armEnd sets the timer for the end of looking, counted from the accept on.
func (i *inspection) armEnd() {
	i.waiting = false
	if limit := i.conf.res.DetectionTimeout; limit > 0 {
		i.w.loop.Schedule(&i.timer, max(0, time.Duration(i.began+int64(limit)-i.w.loop.Now())))
	}
}

// mayBeSilent reports whether a client that says nothing may be given a chain.
func (i *inspection) mayBeSilent() bool {
	if i.conf.res.Detection == nil || i.conn.ReadBytes() > 0 {
		return false
	}
	for k := range i.filters { // a PROXY header is never left out
		if f := &i.filters[k]; f.Kind == resource.ProxyProtocol && !f.HeaderOptional {
			return false
		}
	}
	c := i.conn
	ch := i.listener.config.Load().match(&traits{local: c.LocalAddr(), remote: c.RemoteAddr(), direct: c.DirectRemoteAddr(), transport: transportRaw})
	return ch != nil && ch.tcp.Load() != nil && ch.tls.Load() == nil
}

// knownSilent reports whether there is no point in waiting: at this destination the
// server speaks first.
func (i *inspection) knownSilent() bool {
	if i.conf.res.Detection == nil || !i.w.habits.known(i.destination(), i.w.loop.Now(), 0).serverFirst || !i.mayBeSilent() {
		return false
	}
	i.silence = true
	return true
}

// silent gives a client that has said nothing for the wait its chain.
func (i *inspection) silent() {
	i.waiting = false
	if !i.mayBeSilent() {
		i.armEnd()
		return
	}
	i.silence = true
	i.handOver()
}

// teaching is what a tunnel to a silent client tells.
type teaching struct {
	to     destination
	wait   time.Duration // that there was
	expiry time.Duration
}

func (i *inspection) teaching() *teaching {
	if !i.silence || i.conf.res.Detection == nil {
		return nil
	}
	d := i.conf.res.Detection
	return &teaching{to: i.destination(), wait: max(i.w.habits.known(i.destination(), i.w.loop.Now(), d.Wait).wait, d.Wait), expiry: d.Expiry}
}

// heard is called with the first byte of a tunnel that teaches, whoever sent it.
func (w *worker) heard(t *teaching, fromServer bool) {
	now := w.loop.Now()
	k := habit{serverFirst: fromServer, wait: t.wait, until: now + int64(t.expiry)}
	if !fromServer { // it was given up on too early
		k.wait = min(2*t.wait, maxSilence)
	}
	w.habits.learn(t.to, k, now)
}
