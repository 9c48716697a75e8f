// SPDX-License-Identifier: Apache-2.0

//go:build !race

package proxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// free is a System whose calls cost next to nothing: what a benchmark on it takes is
// the proxy's own time. Clients send what is queued for them, upstreams answer each
// write at once, and what is written to clients is dropped.
type free struct {
	files    []freeFile // by descriptor
	ready    []reactor.Event
	accepts  int
	loop     *reactor.Loop
	response []byte
}

type freeFile struct {
	token    uint64
	upstream bool
	inbox    []byte
	writes   int
}

// client is the descriptor of the i-th client: 0 is the listener's.
func (f *free) client(i int) int { return 1 + i }

func (f *free) send(fd int, b []byte) {
	f.files[fd].inbox = b
	f.ready = append(f.ready, reactor.Event{Token: f.files[fd].token, Flags: reactor.EventIn | reactor.EventOut})
}

func (f *free) open(file freeFile) int {
	f.files = append(f.files, file)
	return len(f.files) - 1
}

func (f *free) Listen(a reactor.Addr, _ int, _ reactor.ListenOptions) ([]int, reactor.Addr, bool, error) {
	return []int{f.open(freeFile{})}, a, false, nil
}

func (f *free) Close([]int, reactor.Addr) {}

func (f *free) Clock() (mono, wall int64) {
	t := time.Now()
	return int64(t.Sub(freeStart)), t.UnixNano()
}

var freeStart = time.Now()

func (f *free) Poll(events []reactor.Event, _ time.Duration) (int, syscall.Errno) {
	n := copy(events, f.ready)
	f.ready = f.ready[:copy(f.ready, f.ready[n:])]
	return n, 0
}

func (f *free) Watch(fd int, token uint64, mode reactor.WatchMode) syscall.Errno {
	f.files[fd].token = token
	flags := reactor.EventOut
	if mode != reactor.ModeStream {
		flags = reactor.EventIn
	}
	f.ready = append(f.ready, reactor.Event{Token: token, Flags: flags})
	return 0
}

func (f *free) Accept(int) (int, netip.AddrPort, syscall.Errno) {
	if f.accepts == 0 {
		return -1, netip.AddrPort{}, syscall.EAGAIN
	}
	f.accepts--
	return f.open(freeFile{}), netip.MustParseAddrPort("127.0.0.1:40000"), 0
}

func (f *free) Connect(*reactor.Addr, *reactor.DialOptions) (int, syscall.Errno) {
	return f.open(freeFile{upstream: true}), 0
}

func (f *free) Read(fd int, b []byte) (int, syscall.Errno) {
	file := &f.files[fd]
	if len(file.inbox) == 0 {
		return 0, syscall.EAGAIN
	}
	n := copy(b, file.inbox)
	file.inbox = file.inbox[n:]
	return n, 0
}

func (f *free) Write(fd int, b []byte) (int, syscall.Errno) {
	f.files[fd].writes++
	if f.files[fd].upstream {
		f.send(fd, f.response)
	}
	return len(b), 0
}

func (f *free) Writev(fd int, bufs [][]byte) (n int, _ syscall.Errno) {
	for _, b := range bufs {
		n += len(b)
	}
	_, errno := f.Write(fd, nil)
	return n, errno
}

func (f *free) WakeOffLoop()                                {}
func (f *free) Unwatch(int) syscall.Errno                   { return 0 }
func (f *free) Shed(int, int) int                           { return 0 }
func (f *free) SocketError(int) syscall.Errno               { return 0 }
func (f *free) LocalAddr(int) netip.AddrPort                { return netip.MustParseAddrPort("127.0.0.1:80") }
func (f *free) OriginalDst(int, bool) (none netip.AddrPort) { return none }
func (f *free) Unread(fd int) int                           { return len(f.files[fd].inbox) }
func (f *free) CloseWrite(int) syscall.Errno                { return 0 }
func (f *free) Reset(int)                                   {}
func (f *free) CloseFD(int)                                 {}
func (f *free) Shutdown()                                   {}

// newFree starts a proxy with all features on a free System, with so many clients.
func newFree(b testing.TB, clients int) (*free, *Proxy) {
	f := &free{response: []byte("HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 30 Nov 2026 05:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 42\r\nConnection: keep-alive\r\n\r\n" +
		`{"id":5,"name":"a thing","tags":["x","y"]}`)}
	var loop *reactor.Loop
	logs := accesslog.NewWriters(0)
	b.Cleanup(func() { logs.Close() })
	p, err := New(Options{Workers: 1, AccessLogs: logs, Binder: f, NewLoop: func(c reactor.Config) (l *reactor.Loop, err error) {
		c.System = f
		loop, err = reactor.NewLoop(c)
		return loop, err
	}})
	if err != nil {
		b.Fatal(err)
	}
	s := baseSnapshot("127.0.0.1:80")
	withCluster(s, "c", "127.0.0.1:81", "127.0.0.1:82")
	allFeatures(s)
	s.Version = 1
	if err := p.Apply(frozen(s)); err != nil {
		b.Fatal(err)
	}
	f.accepts = clients
	for p.AdoptedVersion() != s.Version || f.accepts > 0 || len(f.ready) > 0 {
		loop.Tick(0)
	}
	b.Cleanup(func() {
		loop.StopOffLoop()
		for loop.Tick(0) {
		}
	})
	f.loop = loop
	return f, p
}

// settle runs the loop until nobody has anything to say.
func (f *free) settle() {
	for len(f.ready) > 0 || f.busy() {
		f.loop.Tick(0)
	}
}

// busy reports whether the loop has something to do though nothing has come.
func (f *free) busy() bool {
	at, ok := f.loop.Due()
	return ok && at <= f.loop.Now()
}

// drainAfter is how many requests come between two looks at the records, as at 50 000
// a second.
const drainAfter = 1000

// run has every client send what next gives it, over and over, until all together have
// sent b.N requests.
func (f *free) run(b *testing.B, p *Proxy, clients, each int, next func(client int) []byte) {
	undrained := 0
	round := func() {
		if undrained += clients * each; undrained >= drainAfter {
			undrained = 0
			p.workers[0].ring.Drain(2 * drainAfter)
		}
		for i := range clients {
			f.send(f.client(i), next(i))
		}
		f.settle()
	}
	for range 20 {
		round()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	b.ResetTimer()
	before := threadTime(b)
	for n := 0; n < b.N; n += clients * each {
		round()
	}
	b.ReportMetric(float64(threadTime(b)-before)/float64(b.N), "cpu-ns/op")
}

// threadTime is the CPU time of this thread: unlike the time on the wall it leaves out
// what others on the machine take.
func threadTime(b *testing.B) time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// http2Requests is what a client of HTTP/2 sends: preface, windows and the first request,
// and then the same request again and again, all of it indexed.
func http2Requests() (begin, again []byte) {
	c := http2.New(http2.Client, http2.Limits{})
	var head codec.RequestHead
	head.SetMethod([]byte("GET"))
	head.SetScheme([]byte("http"))
	head.SetAuthority([]byte("x"))
	head.SetPath([]byte("/a/b?c=d"))
	head.BodyLength = codec.BodyNone
	head.AddString("user-agent", "test/1")
	head.AddString("accept", "*/*")
	id, _ := c.NewStream()
	begin = c.AppendRequest(c.AppendPending(nil), id, &head, true)
	begin = append(begin, 0, 0, 0, 4, 1, 0, 0, 0, 0)                      // SETTINGS, ACK
	begin = append(begin, 0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0)       // WINDOW_UPDATE of the connection
	begin = append(begin, 0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0, 0, 0) // SETTINGS_INITIAL_WINDOW_SIZE
	id, _ = c.NewStream()
	return begin, c.AppendRequest(nil, id, &head, true)
}

func TestAnswersToOneConnectionLeaveTogether(t *testing.T) {
	const clients, streams = 2, 3
	f, _ := newFree(t, clients)
	begin, again := http2Requests()
	for i := range clients {
		f.send(f.client(i), begin)
	}
	f.settle()
	for round := range 3 {
		for i := range clients {
			var b []byte
			for k := range streams {
				b = append(b, again...)
				binary.BigEndian.PutUint32(b[k*len(again)+5:], uint32(3+2*(round*streams+k)))
			}
			f.files[f.client(i)].writes = 0
			f.send(f.client(i), b)
		}
		f.settle()
		for i := range clients {
			if n := f.files[f.client(i)].writes; round > 0 && n != 1 { // the first round dials
				t.Errorf("round %d: %d answers came to client %d in %d writes, want 1", round, streams, i, n)
			}
		}
	}
}

// BenchmarkRequest is the proxy's own time for a request with all features on, without
// that of system calls.
func BenchmarkRequest(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("HTTP1/%d", clients), func(b *testing.B) {
			f, p := newFree(b, clients)
			request := []byte("GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nUser-Agent: test/1\r\nAccept: */*\r\n\r\n")
			f.run(b, p, clients, 1, func(int) []byte { return request })
		})
	}
	for _, load := range []struct{ clients, streams int }{{64, 1}, {16, 32}} {
		b.Run(fmt.Sprintf("HTTP2/%dx%d", load.clients, load.streams), func(b *testing.B) {
			f, p := newFree(b, load.clients)
			begin, again := http2Requests()
			for i := range load.clients {
				f.send(f.client(i), begin)
			}
			f.settle()
			ids := make([]uint32, load.clients)
			bufs := make([][]byte, load.clients)
			for i := range ids {
				ids[i] = 1
				for range load.streams {
					bufs[i] = append(bufs[i], again...)
				}
			}
			f.run(b, p, load.clients, load.streams, func(i int) []byte {
				for k := range load.streams {
					ids[i] += 2
					binary.BigEndian.PutUint32(bufs[i][k*len(again)+5:], ids[i])
				}
				return bufs[i]
			})
		})
	}
}
