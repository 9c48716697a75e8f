// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// idleEnv says how many connections idle, and that times are of interest.
const idleEnv = "OUTRIGGER_IDLE"

// idlersAtOnce is how many of them connect at a time.
const idlersAtOnce = 32

// allowFiles lets this process have n files open and returns how many a process that it
// starts may have.
func allowFiles(t *testing.T, n int) int {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if more := (syscall.Rlimit{Cur: was.Max, Max: uint64(4 * n)}); was.Max < more.Max && syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) == nil {
		return int(more.Max) // a privilege
	}
	if was.Max < uint64(n) {
		t.Skipf("needs %d open files, %d are allowed here (ulimit -Hn)", n, was.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: was.Max, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	return int(was.Max)
}

// askHTTP1 sends a request and reads the answer.
func askHTTP1(conn net.Conn) error {
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: app\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 512), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	_, err = io.Copy(io.Discard, res.Body)
	switch {
	case err != nil:
	case res.StatusCode != http.StatusOK:
		err = fmt.Errorf("status %d", res.StatusCode)
	case res.Close:
		err = errors.New("the answer is the connection's last")
	}
	return err
}

// hello is the beginning of a connection of HTTP/2 with one request.
var hello = func() []byte {
	var b, block bytes.Buffer
	b.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&b, nil)
	e := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "app"}} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	return b.Bytes()
}()

// askHTTP2 is askHTTP1 in HTTP/2. It reads frames without a framer, which would need
// more memory than the connection.
func askHTTP2(conn net.Conn) error {
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 512)
	for {
		var head [9]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		size, kind, flags := int(head[0])<<16|int(head[1])<<8|int(head[2]), http2.FrameType(head[3]), http2.Flags(head[4])
		payload := make([]byte, size)
		if _, err := io.ReadFull(r, payload); err != nil {
			return err
		}
		switch {
		case kind == http2.FrameSettings && !flags.Has(http2.FlagSettingsAck):
			ack := []byte{0, 0, 0, byte(http2.FrameSettings), byte(http2.FlagSettingsAck), 0, 0, 0, 0}
			if _, err := conn.Write(ack); err != nil {
				return err
			}
		case kind == http2.FrameGoAway, kind == http2.FrameRSTStream:
			return fmt.Errorf("%s %x", kind, payload)
		case binary.BigEndian.Uint32(head[5:]) == 1 && flags.Has(http2.FlagDataEndStream):
			return nil
		}
	}
}

// portLater leaves the choice of the port until the peer is known: what other connections
// have from the same address is free for this one.
func portLater(_, _ string, raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, set)
}

// idlers are connections that have had an answer.
type idlers struct {
	conns []net.Conn
	took  []time.Duration // to connect and be answered
}

// newIdlers opens n connections; first sends a request on each.
func newIdlers(t *testing.T, address string, n int, first func(net.Conn) error) *idlers {
	t.Helper()
	x := &idlers{conns: make([]net.Conn, n), took: make([]time.Duration, n)}
	var done sync.WaitGroup
	errs := make(chan error, idlersAtOnce)
	for k := range idlersAtOnce {
		done.Go(func() {
			for i := k; i < n; i += idlersAtOnce {
				// Not more from one address than it has ports.
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i/5000))}, Timeout: 20 * time.Second, Control: portLater}
				began := time.Now()
				conn, err := d.Dial("tcp", address)
				if err == nil {
					x.conns[i] = conn
					_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
					err = first(conn)
				}
				if x.took[i] = time.Since(began); err != nil {
					errs <- fmt.Errorf("connection %d: %w", i, err)
					return
				}
			}
		})
	}
	done.Wait()
	close(errs)
	t.Cleanup(x.leave)
	for err := range errs {
		t.Fatal(err)
	}
	return x
}

// gone is how many of them are not there any more.
func (x *idlers) gone() (n int) {
	for _, c := range x.conns {
		// What is there has nothing to read.
		_ = c.SetReadDeadline(time.Now().Add(-time.Second))
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			n++
			continue
		}
		var b [1]byte
		err = raw.Control(func(fd uintptr) {
			if m, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT); err == nil && m == 0 || err != nil && err != syscall.EAGAIN {
				n++
			}
		})
		if err != nil {
			n++
		}
	}
	return n
}

func (x *idlers) leave() {
	for _, c := range x.conns {
		if c != nil {
			_ = c.Close() // nothing is under way
		}
	}
	x.conns = nil
}

// TestIdleConnectionsCostLittle opens thousands of connections that are answered once
// and then stay: what each costs the process, that all are there, and that the others
// are served meanwhile.
func TestIdleConnectionsCostLittle(t *testing.T) {
	counts, long := []int{4000}, false
	if s := os.Getenv(idleEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1000 {
			t.Fatalf("%s=%q: want a number of at least 1000", idleEnv, s)
		}
		counts, long = []int{n}, true
	}
	for _, c := range []struct {
		name  string
		bound int // bytes of a connection
		first func(net.Conn) error
	}{
		{"HTTP/1.1", 4 << 10, askHTTP1},
		{"HTTP/2", 12 << 10, askHTTP2},
	} {
		for _, n := range counts {
			t.Run(fmt.Sprintf("%s %d", c.name, n), func(t *testing.T) {
				idleHere(t, c.name, n, c.bound, c.first, long)
			})
		}
	}
}

// idleHere shares n connections among as many sidecars as their descriptors ask for: half
// of them are for upstreams, and with less than a tenth of the rest left each answer is its
// connection's last.
func idleHere(t *testing.T, protocol string, n, bound int, first func(net.Conn) error, long bool) {
	t.Helper()
	files := allowFiles(t, n+500)
	dir := t.TempDir()
	app := mesh.StartApp(t, dir, "app")
	k := 1 + n/(files*9/20-200)
	var (
		sidecars []*mesh.Sidecar
		all      []*idlers
		before   int
	)
	active := func(s *mesh.Sidecar, n int) {
		s.AwaitStat("http.in.downstream_cx_active", func(active int) bool { return active == n })
	}
	for i := range k {
		sub := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		s := mesh.StartStatic(t, sub, mesh.StaticOptions{Upstream: app.Address, Files: files})
		newIdlers(t, s.Inbound, 200, first).leave() // what only the first ones need
		active(s, 0)
		s.AwaitStat("outrigger.memory_releases_total", func(n int) bool { return n > 0 }) // what only the start needed
		before += s.PSS()
		x := newIdlers(t, s.Inbound, n/k, first)
		active(s, n/k)
		sidecars, all = append(sidecars, s), append(all, x)
	}
	n = n / k * k
	each := 0
	sidecars[0].Await(20*time.Second, "the memory of idle connections", func() error {
		sum := 0
		for _, s := range sidecars {
			sum += s.PSS()
		}
		if each = (sum - before) / n; each > bound {
			return fmt.Errorf("%d bytes each, bound %d", each, bound)
		}
		return nil
	})
	share := sidecars[0].CPUShare(time.Second)
	if share > 0.05 {
		t.Errorf("%.1f %% of a core with %d idle connections", 100*share, n/k)
	}
	sent, gone, took := 0, 0, []time.Duration(nil)
	for i, s := range sidecars {
		load := mesh.StartLoad(t, mesh.LoadConfig{Address: s.Inbound, Host: "app", Conns: 8, Rate: 400})
		load.AwaitSent(200)
		tally := load.Stop()
		tally.Flawless(t, "beside idle connections")
		sent += tally.Sent
		gone += all[i].gone()
		took = append(took, all[i].took...)
		all[i].leave()
		active(s, 0)
	}
	if gone > 0 {
		t.Errorf("%d of %d connections are gone", gone, n)
	}
	times := ""
	if long {
		slices.Sort(took)
		times = fmt.Sprintf("; connected and answered %d at a time in %v (median), %v (p99)", idlersAtOnce, took[n/2].Round(10*time.Microsecond), took[n*99/100].Round(10*time.Microsecond))
	}
	mesh.Conformance(t, "D9", "%d idle connections of %s at %d sidecars: %d bytes each (bound %d), %.1f %% of a core, %d requests of others, 0 failed%s",
		n, protocol, k, each, bound, 100*share, sent, times)
}
