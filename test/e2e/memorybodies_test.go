// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// flooder is a server that reads nothing and writes an answer without end to everybody.
func flooder(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		conns []net.Conn
		done  sync.WaitGroup
	)
	done.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			done.Go(func() { flood(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n") }) // ends with the connection
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		done.Wait()
	})
	return l.Addr().String()
}

func flood(c net.Conn, head string) {
	_, err := io.WriteString(c, head)
	for zeros := make([]byte, 64<<10); err == nil; {
		_, err = c.Write(zeros)
	}
}

// socketMemory is what the kernel has queued for the sockets of a process, in bytes with
// its own overhead, and how many sockets there are.
func socketMemory(pid int) (sum, sockets int, err error) {
	own, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(own) //nolint:errcheck // a descriptor of ours
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, f := range files {
		if to, err := os.Readlink(dir + "/" + f.Name()); err != nil || !strings.HasPrefix(to, "socket:") {
			continue
		}
		n, _ := strconv.Atoi(f.Name())
		fd, err := unix.PidfdGetfd(own, n, 0)
		if err != nil {
			continue // closed meanwhile
		}
		var info [16]uint32
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		_ = unix.Close(fd)
		if errno != 0 {
			continue
		}
		sum += int(info[memReadQueued]) + int(info[memWriteQueued])
		sockets++
	}
	return sum, sockets, nil
}

// Of linux/sock_diag.h.
const memReadQueued, memWriteQueued = 0, 5

// socketBound is what the kernel may queue for each socket of a sidecar in 96 MiB: twice
// a part in 2 048 each way, and the segment that crosses that.
const socketBound = 2*2*(48<<10) + 2*(64<<10)

// TestASidecarWithTooLittleMemoryBearsBodiesThatNobodyReads has bodies without end go in
// both directions and read by nobody, over HTTP/1.1 and by a TCP proxy.
func TestASidecarWithTooLittleMemoryBearsBodiesThatNobodyReads(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		t.Run(fmt.Sprintf("tcp=%v", tcp), func(t *testing.T) {
			g := newMemoryGroup(t, 96<<20)
			s := mesh.StartStatic(t, t.TempDir(), mesh.StaticOptions{Upstream: flooder(t), Around: g.around(), TCP: tcp, Files: 20000, Cluster: `    circuit_breakers: {thresholds: [{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}]}
`})
			crowd := newCrowd(t)
			name := "http.in.downstream_rq_overload_close"
			if tcp {
				name = "overload.envoy.overload_actions.stop_accepting_connections.scale_percent"
			}
			const most = 3000
			shed, peak, sockets := 0, 0, 0
			for n := 0; n < most && shed == 0 && s.Alive(); n++ {
				conn := crowd.dial(s.Inbound)
				crowd.done.Go(func() { flood(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n") }) // ends with the connection
				if n%50 > 0 {
					continue
				}
				if stats, err := s.Stats(); err == nil {
					shed = stats[name]
				}
				if sum, all, err := socketMemory(s.PID()); err == nil {
					peak, sockets = max(peak, sum), max(sockets, all)
					if sum > all*socketBound {
						t.Errorf("the kernel holds %d bytes for %d sockets", sum, all)
					}
				}
			}
			if n := g.killed(t); n > 0 || !s.Alive() {
				t.Fatalf("the kernel killed %d processes of the group", n)
			}
			if peak == 0 {
				t.Error("the kernel tells of no memory of sockets")
			}
			t.Logf("%d sockets with %d KiB at most, shed %d", sockets, peak>>10, shed)
			crowd.leave()
			s.AwaitStat("overload.envoy.overload_actions.stop_accepting_connections.scale_percent", func(n int) bool { return n == 0 })
			s.AwaitStat("overload.envoy.overload_actions.stop_accepting_requests.scale_percent", func(n int) bool { return n == 0 })
		})
	}
}
