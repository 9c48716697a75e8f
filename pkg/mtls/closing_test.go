// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// A reset that is read in the very tick in which the handshake's goroutine reports
// that it is done must not leave a connection that nobody is told the end of.
func TestAConnectionThatClosesWithItsHandshakeIsLetGo(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	ctx, err := mtls.NewServerContext(&resource.DownstreamTLS{
		CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}},
	}, mtls.Options{Tickets: &mtls.Tickets{}})
	must(t, err)
	a, err := reactor.ParseAddr("127.0.0.1:0")
	must(t, err)
	set, err := r.sets.Open(a, 1, reactor.ListenOptions{})
	must(t, err)
	t.Cleanup(set.Release)
	var conn *reactor.Conn
	r.on(func() {
		_, err = r.loop.AddListener(set.Socket(0), accepts(func(c *reactor.Conn) reactor.Handler {
			conn = c
			return r.gate.Accept(c, ctx, 0, &echo{r: r})
		}))
	})
	must(t, err)

	for range 20 {
		n, err := net.Dial("tcp", set.Addr().String())
		must(t, err)
		h := &holds{Conn: n}
		must(t, tls.Client(h, &tls.Config{RootCAs: ca.pool(), ServerName: "a.example", MinVersion: tls.VersionTLS13}).Handshake())
		// The client is done, and the loop has read its last message; what remains
		// to compute waits for a place.
		r.cpu <- struct{}{}
		r.cpu <- struct{}{}
		before := r.read(&conn)
		h.release(t, len(h.kept))
		waitFor(t, "the end of the handshake", func() bool { return r.read(&conn) > before })
		// While the loop stands, the reset arrives and the handshake ends.
		stands, goOn := make(chan struct{}), make(chan struct{})
		r.loop.PostOffLoop(func() { close(stands); <-goOn })
		<-stands
		r.loop.PostOffLoop(func() {}) // its wake-up comes first, the reset is the last event of the tick
		must(t, n.(*net.TCPConn).SetLinger(0))
		must(t, n.Close())
		<-r.cpu
		r.cpu <- struct{}{} // it has computed, or is about to
		<-r.cpu
		<-r.cpu
		for range 100 {
			runtime.Gosched()
		}
		close(goOn)
		select {
		case <-r.ends:
		case <-r.fails:
		case <-time.After(limit):
			t.Fatal("nobody was told of the end of the connection")
		}
	}
}

// read returns how many bytes c has read.
func (r *rig) read(c **reactor.Conn) (n uint64) {
	r.on(func() { n = (*c).ReadBytes() })
	return n
}
