// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func plainServer(t testing.TB, ca *authority) *mtls.ServerContext {
	t.Helper()
	s, err := mtls.NewServerContext(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}}}, mtls.Options{})
	must(t, err)
	return s
}

func TestSilentClientsCostNoGoroutine(t *testing.T) {
	const count = 2000
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{Down: count + 10, PerSource: count + 10})
	s := plainServer(t, ca)
	to := r.listen(func() *mtls.ServerContext { return s }, time.Hour)
	goroutines, before := runtime.NumGoroutine(), inUse()
	conns := make([]net.Conn, count)
	for i := range conns {
		c, err := net.Dial("tcp", to.String())
		must(t, err)
		if i%2 == 0 {
			_, err = c.Write([]byte("\x16\x03\x01\x02\x00\x01")) // the beginning of a hello
			must(t, err)
		}
		conns[i] = c
	}
	waitFor(t, "all to be accepted", func() (ok bool) {
		r.on(func() { down, _ := r.gate.InProgress(); ok = down == count })
		return ok
	})
	if n := runtime.NumGoroutine() - goroutines; n > 2 {
		t.Errorf("%d goroutines for %d silent clients", n, count)
	}
	each := (inUse() - before) / count
	t.Logf("%d bytes for each of %d silent clients, with the client's end", each, count)
	if each > 8<<10 { // half of them have a leftover buffer of 4 kB
		t.Errorf("%d bytes for each silent client, want at most 8 kB", each)
	}
	c, err := dial(t, to, &tls.Config{InsecureSkipVerify: true}) // and the others get through
	must(t, err)
	exchange(t, c, []byte("hello"))
	must(t, c.Close())
	for _, c := range conns {
		must(t, c.Close())
	}
	for range conns {
		r.failure()
	}
}

// waitFor looks until done.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s: time limit reached", what)
		}
	}
}

func TestASilentClientIsClosedInTime(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	s := plainServer(t, ca)
	to := r.listen(func() *mtls.ServerContext { return s }, 50*time.Millisecond)
	for _, hello := range []string{"", "\x16\x03", "\x16\x03\x01\x00\x04\x01\x00\x01\x00"} { // the last is a whole record: its goroutine waits for more
		c, err := net.Dial("tcp", to.String())
		must(t, err)
		_, err = c.Write([]byte(hello))
		must(t, err)
		if f := r.failure(); f.Reason != mtls.TimedOut || f.Text() != "TLS_error: handshake timed out" {
			t.Errorf("%q: %v", hello, f)
		}
		_, _ = io.Copy(io.Discard, c)
		must(t, c.Close())
	}
}

func TestTooManyHandshakesAreRefused(t *testing.T) {
	ca := newAuthority(t, "ca")
	for name, limits := range map[string]mtls.Limits{"in all": {Down: 3}, "of a source": {PerSource: 3}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, limits)
			s := plainServer(t, ca)
			to := r.listen(func() *mtls.ServerContext { return s }, time.Hour)
			var held []net.Conn
			for range 3 {
				c, err := net.Dial("tcp", to.String())
				must(t, err)
				held = append(held, c)
			}
			waitFor(t, "three handshakes", func() (ok bool) {
				r.on(func() { down, _ := r.gate.InProgress(); ok = down == 3 })
				return ok
			})
			if _, err := dial(t, to, &tls.Config{InsecureSkipVerify: true}); err == nil {
				t.Error("a fourth got in")
			}
			if f := r.failure(); f.Reason != mtls.TooMany {
				t.Errorf("refused by %v", f)
			}
			must(t, held[0].Close())
			r.failure()
			c, err := dial(t, to, &tls.Config{InsecureSkipVerify: true})
			must(t, err)
			exchange(t, c, []byte("hello"))
			must(t, c.Close())
			for _, c := range held[1:] {
				must(t, c.Close())
				r.failure()
			}
		})
	}
}

func TestHandshakesEndWithTheirConnections(t *testing.T) {
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	s := plainServer(t, ca)
	to := r.listen(func() *mtls.ServerContext { return s }, time.Hour)
	var wg sync.WaitGroup
	const count = 200
	for range count {
		wg.Go(func() {
			n, err := net.Dial("tcp", to.String())
			if err != nil {
				t.Error(err)
				return
			}
			// The client goes after the server's flight, at some point of it.
			c := tls.Client(n, &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error {
				_ = n.(*net.TCPConn).SetLinger(0)
				_ = n.Close()
				return io.EOF
			}})
			_ = c.Handshake()
		})
	}
	wg.Wait()
	for range count {
		r.failure()
	}
	r.on(func() {
		if down, _ := r.gate.InProgress(); down != 0 {
			t.Errorf("%d handshakes are still under way", down)
		}
	})
}
