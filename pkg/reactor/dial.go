// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// KeepAlive sets TCP keep-alive probes; the zero value leaves them off. They
// are counted in whole seconds, rounded up; zero fields keep the system's defaults.
type KeepAlive struct {
	Idle, Interval time.Duration
	Probes         int
}

// DialOptions are what a dialled connection may want. TCP_NODELAY is always set.
type DialOptions struct {
	// Local is the address to connect from, zero for any; its port is usually 0.
	Local     Addr
	KeepAlive KeepAlive
	// Buffer is Bounds.Socket, which the loop fills in.
	Buffer int
}

// Dial starts to connect. h.OnConnect or h.OnClose follows, never from inside
// Dial; output may be queued before. Without a place for it (Config.Dialling) the
// connection closes with EMFILE. There is no time limit but the system's:
// arm a Timer and Close. An error is returned, and no Conn, only for what is no
// address or when the loop has stopped.
func (l *Loop) Dial(to Addr, o DialOptions, h Handler) (*Conn, error) {
	l.owner.check()
	switch {
	case l.stopped:
		return nil, ErrLoopStopped
	case to.IsZero():
		return nil, errors.New("reactor: dial: no address")
	case h == nil:
		return nil, fmt.Errorf("reactor: dial %s: no handler", to)
	case !o.Local.IsZero() && o.Local.IsUnix() != to.IsUnix():
		return nil, fmt.Errorf("reactor: dial %s: cannot connect from %s", to, o.Local)
	}
	l.stats.Dialled++
	fd, errno, placed := -1, syscall.EMFILE, l.config.Dialling.take()
	if placed {
		o.Buffer = l.bounds.Socket
		fd, errno = l.sys.Connect(&to, &o)
	}
	c := l.newConn(fd, connecting)
	if placed {
		c.flags |= dialled
	}
	c.handler = h
	if to.AddrPort.IsValid() {
		c.remote = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	}
	if errno == 0 {
		if l.config.Ends != nil && c.remote.IsValid() { // before anybody can have accepted it
			c.local = l.sys.LocalAddr(fd)
			l.config.Ends.add(c.local, c.remote)
		}
		errno = l.sys.Watch(fd, l.token(c.slot), ModeStream)
	}
	if errno != 0 {
		l.close(c, errno)
	}
	return c, nil
}

// newConn makes the Conn of a descriptor; fd is negative where there is none.
func (l *Loop) newConn(fd int, s state) *Conn {
	l.lastID++
	c := &Conn{loop: l, id: uint64(l.config.Index)<<48 | l.lastID, fd: int32(fd), state: s, high: DefaultWatermark, limit: DefaultReadLimit}
	l.stats.Open++
	l.unseen = true
	if fd >= 0 {
		c.slot = l.takeSlot()
		l.slots[c.slot].conn = c
	}
	return c
}

// connected handles the end of a connect.
func (l *Loop) connected(c *Conn) {
	if errno := l.sys.SocketError(int(c.fd)); errno != 0 {
		l.close(c, errno)
		return
	}
	c.state = open
	c.flags |= writable
	if c.remote.IsValid() {
		if !c.local.IsValid() {
			c.local = l.sys.LocalAddr(int(c.fd))
		}
		if c.local == c.remote {
			// A port that nobody listens on was chosen as our own, and TCP
			// connected the socket with itself.
			l.close(c, syscall.ECONNREFUSED)
			return
		}
	}
	l.markDirty(c)
	c.handler.OnConnect(c)
}
