// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
)

// Clients of the standard library against two loops in their own threads.
func TestManyClientsAreServedByTwoLoops(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "@outrigger-many"} {
		set, err := reactor.NewSockets(nil).Open(mustAddr(t, listen), 2, reactor.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var loops []*reactor.Loop
		for i := range 2 {
			l := runLoop(t, reactor.Config{Index: i, OnPanic: func(v any, stack []byte) { t.Errorf("panic: %v\n%s", v, stack) }})
			loops = append(loops, l)
			onLoop(l, func() {
				if _, err := l.AddListener(set.Socket(i), acceptor(func(c *reactor.Conn) reactor.Handler {
					s := (&script{}).echo()
					s.c = c
					return s
				})); err != nil {
					t.Error(err)
				}
			})
		}
		var clients sync.WaitGroup
		for i := range 20 {
			clients.Add(1)
			go func() {
				defer clients.Done()
				if err := talk(set.Addr(), 1<<(2*(i%11))); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}()
		}
		clients.Wait()
		for _, l := range loops {
			onLoop(l, func() {
				if s := l.Stats(); s.ReadBytes != s.WrittenBytes {
					t.Errorf("%d bytes read and %d written", s.ReadBytes, s.WrittenBytes)
				}
			})
			l.StopOffLoop()
		}
		set.Release()
	}
}

// talk sends size bytes and half-closes, while it reads all of them back.
func talk(a reactor.Addr, size int) error {
	network, name := "tcp", a.String()
	if a.IsUnix() {
		network, name = "unix", a.Unix
	}
	c, err := net.Dial(network, name)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	want := pattern(size)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		if err == nil {
			err = c.(interface{ CloseWrite() error }).CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("bytes came back changed")
	}
	return errors.Join(err, <-sent)
}

// monkey is one end of a connection that does what a random number says.
type monkey struct {
	script
	rng  *rand.Rand
	sent uint64 // bytes given to Write
	got  uint64 // bytes consumed
	bad  string
}

// The n-th byte of each stream is known, so that a loss shows at once.
func streamByte(n uint64) byte { return byte(n*7 + n>>8) }

func (m *monkey) write(n int) {
	b := make([]byte, n)
	for i := range b {
		b[i] = streamByte(m.sent + uint64(i))
	}
	before := m.c.Buffered() + int(m.c.WrittenBytes())
	if m.rng.IntN(2) == 0 {
		m.c.Write(b)
	} else {
		m.c.Commit(append(m.c.Reserve(m.rng.IntN(n+1)), b...))
	}
	if m.c.Buffered()+int(m.c.WrittenBytes()) > before {
		m.sent += uint64(n)
	}
}

func (m *monkey) consume(in []byte) int {
	n := len(in)
	if m.rng.IntN(3) == 0 {
		n = m.rng.IntN(n + 1)
	}
	for i, b := range in[:n] {
		if b != streamByte(m.got+uint64(i)) {
			m.bad = "a byte is lost, twice or changed"
		}
	}
	m.got += uint64(n)
	if n < len(in) {
		m.c.Redeliver()
	}
	m.act()
	return n
}

// act does one thing at random; most of the time the harmless ones.
func (m *monkey) act() {
	if m.c == nil || m.closes > 0 {
		return
	}
	switch p := m.rng.IntN(200); {
	case p < 80:
		m.write(1 + m.rng.IntN(20_000))
	case p < 120:
		m.write(1 + m.rng.IntN(200))
	case p < 140:
		m.c.Pause()
		c := m.c
		t := &reactor.Timer{F: c.Resume}
		c.Loop().Schedule(t, time.Duration(m.rng.IntN(50))*time.Millisecond)
	case p < 150:
		m.c.SetWatermark(1 + m.rng.IntN(100_000))
	case p < 160:
		m.c.SetReadLimit(1 + m.rng.IntN(100_000))
	case p < 164:
		m.c.CloseWrite()
	case p < 166:
		m.c.CloseAfterFlush(time.Duration(m.rng.IntN(200)) * time.Millisecond)
	case p < 167:
		m.c.Abort()
	case p < 168:
		m.c.Close(errors.New("monkey"))
	case p < 169:
		panic("monkey")
	}
}

func TestNoOrderOfVerbsLosesBytesOrCallsTwice(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		r := simRig(t, seed, sim.Link{Latency: time.Millisecond, Jitter: 2 * time.Millisecond, MaxSegment: 5000, Window: 30_000, ShortWrites: 0.2})
		rng := rand.New(rand.NewPCG(seed, 99))
		var all []*monkey
		spawn := func() *monkey {
			m := &monkey{rng: rng}
			m.onData, m.onEOF, m.onLow, m.onConnect = m.consume, m.act, m.act, m.act
			m.onHigh = func() {}
			all = append(all, m)
			return m
		}
		addr := r.listenFar(func() *script { return &spawn().script })
		for range 10 {
			m := spawn()
			r.dial(addr, &m.script)
		}
		for range 300 {
			all[rng.IntN(len(all))].actIsolated()
			if err := r.world.Run(time.Duration(rng.IntN(10)) * time.Millisecond); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		// Nobody is left hanging: with reads going on, all bytes of living pairs arrive.
		for _, m := range all {
			m.onData = func(in []byte) int {
				m.rng = rand.New(rand.NewPCG(1, 1))
				for i, b := range in {
					if b != streamByte(m.got+uint64(i)) {
						m.bad = "a byte is lost, twice or changed"
					}
				}
				m.got += uint64(len(in))
				return len(in)
			}
			m.onEOF, m.onLow = nil, nil
			m.c.Redeliver()
		}
		if err := r.world.Run(30 * time.Second); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, m := range all {
			if m.bad != "" || m.closes > 1 {
				t.Fatalf("seed %d: connection %d: %s, %d OnClose", seed, i, m.bad, m.closes)
			}
			if m.closes == 0 && m.c.Buffered() > 0 {
				t.Fatalf("seed %d: connection %d still has %d bytes to write, paused %v", seed, i, m.c.Buffered(), m.c.Paused())
			}
			var known = m.err == nil || errors.Is(m.err, syscall.ECONNRESET) || errors.Is(m.err, syscall.EPIPE) || errors.Is(m.err, reactor.ErrPanic) || errors.Is(m.err, reactor.ErrStalled) || m.err.Error() == "monkey"
			if !known {
				t.Fatalf("seed %d: connection %d closed with %v", seed, i, m.err)
			}
		}
		r.stop()
		for i, m := range all {
			if m.closes != 1 {
				t.Fatalf("seed %d: connection %d heard %d OnClose", seed, i, m.closes)
			}
		}
	}
}

// actIsolated acts from outside a callback, where nobody contains a panic.
func (m *monkey) actIsolated() {
	defer func() { _ = recover() }()
	m.act()
}
