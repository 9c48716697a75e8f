// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// watcher is a connection filter that sees the first bytes of each direction.
type watcher struct {
	watching
	done chan watched
}

// watching is its configuration.
type watching struct {
	most int    // bytes that it wants of each direction
	id   string // of equal ones the next continues the one before
}

type watched struct {
	w    *watcher
	rec  *record.Record
	end  record.Record
	seen [2][]byte
	// discarded: it was told that the filter has gone.
	discarded bool
}

func (w *watcher) OnConnection(r *record.Record, _ int64, _ uint64) filter.ConnectionObserver {
	if w.most == 0 {
		return nil
	}
	return &watched{w: w, rec: r}
}

func (o *watched) OnBytes(fromUpstream bool, b []byte, _ int64) bool {
	s := &o.seen[0]
	if fromUpstream {
		s = &o.seen[1]
	}
	*s = append(*s, b...)
	return len(*s) < o.w.most
}

func (o *watched) OnDone(int64) {
	o.end, o.rec = *o.rec, nil
	o.w.done <- *o
}

func (o *watched) OnReplaced(by filter.ConnectionFilter, _ int64) bool {
	if w, ok := by.(*watcher); ok && w.id == o.w.id {
		return true
	}
	o.discarded = true
	o.OnDone(0)
	return false
}

// watchedTCP is a TCP proxy to a backend, whose connections are watched.
func watchedTCP(t *testing.T, most int, backend string) (*rig, chan watched) {
	done := make(chan watched, 4)
	filters := filter.NewRegistry(filter.Spec{Name: "w", TypeURL: "w", Connection: &filter.ConnectionSpec{
		New: func(config any, _ filter.Worker) filter.ConnectionFilter {
			return &watcher{watching: config.(watching), done: done}
		},
	}})
	return newRigOf(t, Options{Workers: 1, Filters: filters}, func(s *resource.Snapshot) {
		withCluster(s, "c", backend)
		s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
			StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour,
			Tap: &resource.ConnectionFilter{TypeURL: "w", Config: watching{most: most}}}}
	}), done
}

// What is beyond the first bytes passes unseen, in the kernel where it comes in bulk, and
// is counted.
func TestAWatchedConnectionIsSeenUntilNoMoreIsWanted(t *testing.T) {
	const size, most = 24 << 20, 100_000
	body := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	b := scripted(t, func(c net.Conn) {
		if _, err := c.Write(body); err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(io.Discard, c)
	})
	r, done := watchedTCP(t, most, b)
	c := r.dial().(*net.TCPConn)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(body)
		sent <- err
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadFull(c, make([]byte, size)); err != nil {
		t.Fatalf("the client has %d bytes: %v", got, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	o := <-done
	for way, seen := range o.seen {
		if len(seen) < most || len(seen) > most+64<<10 || !bytes.HasPrefix(body, seen) {
			t.Errorf("direction %d: saw %d bytes, or others; want the first %d and the read that they end in", way, len(seen), most)
		}
	}
	if o.end.BytesReceived != size || o.end.BytesSent != size || o.end.End <= 0 || o.end.Cluster != "c" || !o.end.UpstreamAddr.IsValid() {
		t.Errorf("the record at the end: %+v", o.end)
	}
}

func TestAConnectionWithoutUpstreamIsWatchedToItsEnd(t *testing.T) {
	r, done := watchedTCP(t, 10, freeAddr(t)) // where nobody listens
	if got, err := io.ReadAll(r.dial()); len(got) > 0 {
		t.Errorf("got %q %v", got, err)
	}
	if o := <-done; o.end.Flags != record.UF|record.URX || !strings.Contains(o.end.TransportReason, "refused") {
		t.Errorf("got %v %q", o.end.Flags, o.end.TransportReason)
	}
}

func TestAConnectionThatNobodyWatchesHasNoObserver(t *testing.T) {
	r, _ := watchedTCP(t, 0, scripted(t, func(c net.Conn) { _, _ = io.Copy(c, c) }))
	c := r.dial()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	free := make(chan bool)
	w := r.p.workers[0]
	w.loop.PostOffLoop(func() {
		u := w.tunnels
		free <- u.observer == nil && !u.down.seen && !u.up.seen && u.down.RelayTo(nil) != nil && u.up.RelayTo(nil) != nil
	})
	if !<-free {
		t.Error("it is watched, or kept from the kernel")
	}
}

// A tap that is taken out or changed sees no more of connections that go on. Other
// changes of the listener, decoded anew, end nothing.
func TestATapEndsWithItsConfigurationAndNotWithTheConnection(t *testing.T) {
	tap := func(id string) *resource.ConnectionFilter {
		return &resource.ConnectionFilter{TypeURL: "w", Config: watching{1000, id}}
	}
	// begin has a connection watched by "a", which has said "one".
	begin := func(t *testing.T) (*rig, chan watched, net.Conn) {
		r, done := watchedTCP(t, 1000, scripted(t, func(c net.Conn) { _, _ = io.Copy(c, c) }))
		r.rechain(func(l *resource.Listener, c *resource.FilterChain) { c.TCP.Tap = tap("a") })
		c := r.dial()
		echo(t, c, "one")
		return r, done, c
	}
	match := func(c *resource.FilterChain) { c.Match.DestinationPort = 1 }
	for name, edits := range map[string][]func(l *resource.Listener, c *resource.FilterChain){
		"removed":                             {func(_ *resource.Listener, c *resource.FilterChain) { c.TCP.Tap = nil }},
		"changed":                             {func(_ *resource.Listener, c *resource.FilterChain) { c.TCP.Tap = tap("b") }},
		"removed with its chain":              {func(l *resource.Listener, c *resource.FilterChain) { c.Name = "other" }},
		"removed from the chain that follows": {func(_ *resource.Listener, c *resource.FilterChain) { match(c); c.TCP.Tap = nil }},
		"removed behind its chain": {
			func(_ *resource.Listener, c *resource.FilterChain) { match(c) },
			func(_ *resource.Listener, c *resource.FilterChain) { c.TCP.Tap = nil },
		},
		"removed with its listener": {func(l *resource.Listener, _ *resource.FilterChain) { l.Name = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			r, done, c := begin(t)
			for i, edit := range edits {
				if len(done) > 0 {
					t.Fatalf("ended before change %d", i)
				}
				r.rechain(edit)
			}
			select {
			case o := <-done:
				if !o.discarded || string(o.seen[0]) != "one" {
					t.Errorf("discarded: %t, having seen %q", o.discarded, o.seen[0])
				}
			default:
				t.Fatal("it is still watched")
			}
			r.onLoop(func(w *worker) {
				if u := w.tunnels; u.down.RelayTo(nil) == nil || u.up.RelayTo(nil) == nil {
					t.Error("it is kept from the kernel")
				}
			})
			echo(t, c, "SECRET")
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			for gone := false; !gone; {
				r.onLoop(func(w *worker) { gone = w.tunnels == nil })
			}
			if len(done) > 0 {
				t.Errorf("told once more: %+v", <-done)
			}
		})
	}
	for name, edit := range map[string]func(l *resource.Listener, c *resource.FilterChain){
		"an idle timeout": func(_ *resource.Listener, c *resource.FilterChain) { c.TCP.IdleTimeout = time.Minute },
		"another match":   func(_ *resource.Listener, c *resource.FilterChain) { match(c) },
	} {
		t.Run(name, func(t *testing.T) {
			r, done, c := begin(t)
			r.rechain(func(l *resource.Listener, c *resource.FilterChain) { c.TCP.Tap = tap("a"); edit(l, c) })
			echo(t, c, "two")
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if o := <-done; o.discarded || string(o.seen[0]) != "onetwo" {
				t.Errorf("discarded: %t, having seen %q", o.discarded, o.seen[0])
			}
		})
	}
}

// A connection that shook hands while its chain went is watched only if the tap stays.
func TestAConnectionOfAChainThatHasGoneIsNotWatched(t *testing.T) {
	r, _ := watchedTCP(t, 1000, scripted(t, func(c net.Conn) { _, _ = io.Copy(c, c) }))
	l := r.p.listeners["l"]
	ch := l.config.Load().chains[0]
	r.rechain(func(_ *resource.Listener, c *resource.FilterChain) { c.Name, c.TCP.Tap = "other", nil })
	r.onLoop(func(w *worker) {
		u := &tunnel{w: w, listener: l, chain: ch, proxy: ch.tcp.Load()}
		if u.observe(); u.observer != nil {
			t.Error("it is watched")
		}
	})
}

// rechain applies a changed copy of the listener and its chain; one without a name is
// taken out.
func (r *rig) rechain(edit func(*resource.Listener, *resource.FilterChain)) {
	r.t.Helper()
	l := *r.snap.Listeners["l"]
	c := *l.FilterChains[0]
	tcp := *c.TCP
	c.TCP, l.FilterChains = &tcp, []*resource.FilterChain{&c}
	edit(&l, &c)
	if r.snap.Listeners["l"] = &l; l.Name == "" {
		delete(r.snap.Listeners, "l")
	}
	r.apply(r.snap)
}

// echo says something and waits for it to come back.
func echo(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestATapOfNoKnownTypeIsRefused(t *testing.T) {
	r, _ := watchedTCP(t, 0, freeAddr(t))
	if _, err := r.p.compileTap(&resource.ConnectionFilter{TypeURL: "x"}); err == nil || !strings.Contains(err.Error(), "type x") {
		t.Errorf("got %v", err)
	}
}
