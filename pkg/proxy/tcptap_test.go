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
	most int
	done chan watched
}

type watched struct {
	w    *watcher
	rec  *record.Record
	end  record.Record
	seen [2][]byte
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

// watchedTCP is a TCP proxy to a backend, whose connections are watched.
func watchedTCP(t *testing.T, most int, backend string) (*rig, chan watched) {
	done := make(chan watched, 4)
	filters := filter.NewRegistry(filter.Spec{Name: "w", TypeURL: "w", Connection: &filter.ConnectionSpec{
		New: func(config any, _ filter.Worker) filter.ConnectionFilter {
			return &watcher{most: config.(int), done: done}
		},
	}})
	return newRigWith(t, filters, func(s *resource.Snapshot) {
		withCluster(s, "c", backend)
		s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
			StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour,
			Tap: &resource.ConnectionFilter{TypeURL: "w", Config: most}}}
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

func TestATapOfNoKnownTypeIsRefused(t *testing.T) {
	r, _ := watchedTCP(t, 0, freeAddr(t))
	if _, err := r.p.compileTap(&resource.ConnectionFilter{TypeURL: "x"}); err == nil || !strings.Contains(err.Error(), "type x") {
		t.Errorf("got %v", err)
	}
}
