// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// session makes a Session of the server and the client's tls.Conn, whose bytes are
// carried by hand.
func session(t testing.TB, version uint16) (*mtls.Session, *tls.Conn, *wire) {
	t.Helper()
	return sessionOf(t, &tls.Config{InsecureSkipVerify: true, MaxVersion: version, DynamicRecordSizingDisabled: true})
}

func sessionOf(t testing.TB, conf *tls.Config) (*mtls.Session, *tls.Conn, *wire) {
	t.Helper()
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	ctx, err := mtls.NewServerContext(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}}}, mtls.Options{})
	must(t, err)
	k := &keeper{got: make(chan *mtls.Session, 1)}
	a, err := reactor.ParseAddr("127.0.0.1:0")
	must(t, err)
	set, err := r.sets.Open(a, 1, reactor.ListenOptions{})
	must(t, err)
	t.Cleanup(set.Release)
	r.on(func() {
		_, err = r.loop.AddListener(set.Socket(0), accepts(func(c *reactor.Conn) reactor.Handler {
			return r.gate.Accept(c, ctx, 0, k)
		}))
	})
	must(t, err)
	n, err := net.Dial("tcp", set.Addr().AddrPort.String())
	must(t, err)
	t.Cleanup(func() { _ = n.Close() })
	w := &wire{Conn: n}
	c := tls.Client(w, conf)
	must(t, c.Handshake())
	s := receive(t, "session", k.got)
	w.byHand = true
	return s, c, w
}

// wire is the client's connection; by hand, its bytes go into buffers.
type wire struct {
	net.Conn
	byHand  bool
	in, out []byte
}

func (w *wire) Read(b []byte) (int, error) {
	if !w.byHand {
		return w.Conn.Read(b)
	}
	n := copy(b, w.in)
	w.in = w.in[n:]
	return n, nil
}

func (w *wire) Write(b []byte) (int, error) {
	if !w.byHand {
		return w.Conn.Write(b)
	}
	w.out = append(w.out, b...)
	return len(b), nil
}

type keeper struct {
	echo
	got chan *mtls.Session
}

func (k *keeper) OnSecure(c *reactor.Conn, s *mtls.Session) reactor.Handler {
	c.Pause() // the session is the test's from here on
	k.got <- s
	return quiet{}
}

// quiet does nothing with what it gets.
type quiet struct{}

func (quiet) OnConnect(*reactor.Conn)              {}
func (quiet) OnData(_ *reactor.Conn, b []byte) int { return len(b) }
func (quiet) OnEOF(*reactor.Conn)                  {}
func (quiet) OnHighWater(*reactor.Conn)            {}
func (quiet) OnLowWater(*reactor.Conn)             {}
func (quiet) OnClose(*reactor.Conn, error)         {}

var (
	versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}
	sizes    = []int{100, 1 << 10, 16 << 10, 64 << 10}
)

func TestRecordsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools of buffers forget")
	}
	for _, version := range versions {
		s, c, w := session(t, version)
		for _, n := range sizes {
			plain := pattern(n)
			var sealed, opened []byte
			if got := testing.AllocsPerRun(100, func() { sealed = s.Seal(sealed[:0], plain) }); got != 0 {
				t.Errorf("%s: sealing %d bytes allocates %v times", tls.VersionName(version), n, got)
			}
			got := testing.AllocsPerRun(100, func() {
				w.out = w.out[:0]
				_, _ = c.Write(plain)
				var err error
				if opened, _, err = s.Open(opened[:0], w.out); err != nil || len(opened) != n {
					t.Fatal(len(opened), err)
				}
			})
			// The client's Write allocates nothing either.
			if got != 0 {
				t.Errorf("%s: opening %d bytes allocates %v times", tls.VersionName(version), n, got)
			}
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, version := range versions {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", tls.VersionName(version), n), func(b *testing.B) {
				s, _, _ := session(b, version)
				plain := pattern(n)
				var sealed []byte
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					sealed = s.Seal(sealed[:0], plain)
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, version := range versions {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", tls.VersionName(version), n), func(b *testing.B) {
				s, c, w := session(b, version)
				plain := pattern(n)
				var opened []byte
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					w.out = w.out[:0]
					_, _ = c.Write(plain)
					b.StartTimer()
					opened, _, _ = s.Open(opened[:0], w.out)
				}
			})
		}
	}
}

func TestAnIdleConnectionCostsLittle(t *testing.T) {
	for _, version := range versions {
		for _, body := range []int{100, 16 << 10} {
			got := idleCost(t, version, body)
			t.Logf("%s, after %d bytes each way: %d bytes per idle connection", tls.VersionName(version), body, got)
			if got > 12<<10 {
				t.Errorf("%s, after %d bytes each way: %d bytes per idle connection, want at most 12 kB", tls.VersionName(version), body, got)
			}
		}
	}
}

// idleCost is what a connection that has exchanged body bytes takes of the heap and
// stacks, without the client's end.
func idleCost(t *testing.T, version uint16, body int) int {
	const count = 400
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{
		CommonTLS:                resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}, Validation: ca.trust(orders)},
		RequireClientCertificate: true,
	})
	conf := &tls.Config{InsecureSkipVerify: true, MaxVersion: version, Certificates: []tls.Certificate{ca.issue([]string{orders}, nil).tls(t)}}
	open := func() net.Conn {
		c, err := dial(t, to, conf)
		must(t, err)
		exchange(t, c, pattern(body))
		receive(t, "handshake", r.infos)
		return c.NetConn() // the rest of the client's end is garbage
	}
	held := []net.Conn{open(), open()}
	before := inUse()
	for range count {
		held = append(held, open())
	}
	after := inUse()
	for _, c := range held {
		must(t, c.Close())
	}
	for range held {
		receive(t, "close", r.ends)
	}
	return int(after-before) / count
}

func inUse() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
