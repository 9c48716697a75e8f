// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/internal/launch"
)

// asAttacker makes the test binary an attacker of the sidecar at an address: see
// attacker. It is a process of its own, so that what attacking costs is not taken
// from those who measure.
const asAttacker = "OUTRIGGER_TEST_ATTACKER"

// assault is what attackers got through.
type assault struct{ attacks, frames, bytes int64 }

func (a *assault) add(b assault) {
	a.attacks += b.attacks
	a.frames += b.frames
	a.bytes += b.bytes
}

// attacker is the attacking process, as the test sees it.
type attacker struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Reader
}

// startAttacker starts the process, which waits for begin, and ends it with the
// test. before prepares the thread that forks; the process inherits that.
func (p *proxy) startAttacker(l *launch.Launcher, before ...func() error) *attacker {
	p.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asAttacker+"="+p.addr)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(p.t, err)
	out, err := cmd.StdoutPipe()
	must(p.t, err)
	must(p.t, l.Start(cmd, syscall.SIGKILL, before...))
	p.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &attacker{p.t, in, bufio.NewReader(out)}
}

// begin makes it attack by so many connections at a time, from so many addresses by
// turns, and returns when a first one is ended.
func (a *attacker) begin(connections, sources int) {
	a.t.Helper()
	a.say(itoa(connections) + " " + itoa(sources))
	if line := a.hear(); line != "begun" {
		a.t.Fatalf("the attacker said %q", line)
	}
}

// end makes it stop, and returns what it has done since begin.
func (a *attacker) end() (did assault) {
	a.t.Helper()
	a.say("end")
	line := a.hear()
	if _, err := fmt.Sscan(line, &did.attacks, &did.frames, &did.bytes); err != nil {
		a.t.Fatalf("the attacker said %q: %v", line, err)
	}
	return did
}

func (a *attacker) say(word string) {
	a.t.Helper()
	_, err := io.WriteString(a.in, word+"\n")
	must(a.t, err)
}

func (a *attacker) hear() string {
	a.t.Helper()
	line, err := a.out.ReadString('\n')
	must(a.t, err)
	return strings.TrimSpace(line)
}

// attack is the attacker's main function: it does what standard input says, and ends
// with it.
func attack(addr string) int {
	scripts := make([]script, len(floods))
	for i, f := range floods {
		scripts[i] = record(f)
	}
	words := bufio.NewScanner(os.Stdin)
	next := 0 // each slice goes on where the one before has ended
	for words.Scan() {
		var n, sources int
		if _, err := fmt.Sscan(words.Text(), &n, &sources); err != nil {
			fmt.Fprintln(os.Stderr, "want a number of connections and one of sources: ", err)
			return 1
		}
		stop, begun := make(chan struct{}), sync.OnceFunc(func() { fmt.Println("begun") })
		var wait sync.WaitGroup
		var mu sync.Mutex
		var all assault
		turn := func() (*script, net.Addr) {
			mu.Lock()
			defer mu.Unlock()
			next++
			from := next % sources
			return &scripts[next%len(scripts)], &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+from/250), byte(1+from%250))}
		}
		for range n {
			wait.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					s, from := turn()
					did := s.play(addr, from, stop)
					if did.attacks > 0 {
						begun()
					}
					mu.Lock()
					all.add(did)
					mu.Unlock()
				}
			})
		}
		words.Scan() // "end", or the end of the test
		close(stop)
		wait.Wait()
		fmt.Println(all.attacks, all.frames, all.bytes)
	}
	return 0
}

// script is what one connection says, made beforehand: to attack is to be cheap.
type script struct {
	bytes []byte
	ends  []int // of frames
}

// mostScript is more than any flood is borne.
const mostScript = 17 << 20

// record makes the script of a flood.
func record(a flood) (s script) {
	h := newHTTP2Peer(alone{}, nil)
	h.out.WriteString(http2.ClientPreface)
	must(h.t, h.f.WriteSettings())
	if a.prepare != nil {
		a.prepare(h)
	}
	for i := 0; i < rounds && h.out.Len() < mostScript; i++ {
		a.each(h, i)
	}
	s.bytes = h.out.Bytes()
	for at := len(http2.ClientPreface); at < len(s.bytes); {
		at += 9 + int(binary.BigEndian.Uint32(s.bytes[at:])>>8)
		s.ends = append(s.ends, at)
	}
	return s
}

// play says a script on a connection of its own until the other side ends it, which
// makes it an attack, or stop does.
func (s *script) play(addr string, from net.Addr, stop <-chan struct{}) (did assault) {
	conn, err := (&net.Dialer{LocalAddr: from}).Dial("tcp", addr)
	if err != nil {
		return did
	}
	defer func() { _ = conn.Close() }()
	c := tls.Client(conn, clientTLS("h2"))
	if c.Handshake() != nil {
		return did
	}
	over := make(chan struct{})
	go func() { // ends with the connection
		defer close(over)
		_, _ = io.Copy(io.Discard, c)
	}()
	stopped := make(chan bool, 1)
	go func() { // likewise
		select {
		case <-stop:
			_ = conn.Close()
			stopped <- true
		case <-over:
			stopped <- false
		}
	}()
	sent := 0
	for sent < len(s.bytes) {
		n, err := c.Write(s.bytes[sent:min(sent+32<<10, len(s.bytes))])
		sent += n
		if err != nil {
			break
		}
	}
	<-over
	did.bytes = int64(sent)
	did.frames = int64(sort.SearchInts(s.ends, sent+1))
	if !<-stopped {
		did.attacks = 1
	}
	return did
}

// alone stands in for a test where there is none.
type alone struct{ testing.TB }

func (alone) Helper() {}

func (alone) Fatal(what ...any) {
	fmt.Fprintln(os.Stderr, what...)
	os.Exit(1)
}

// idle gives the calling thread, and what it forks, only what others leave of the
// CPU: an attacker is on a machine of its own.
func idle() error {
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err == nil {
		return nil
	}
	return unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
}

// on binds the calling thread, and what it forks, to CPUs.
func on(set *unix.CPUSet) func() error {
	return func() error { return unix.SchedSetaffinity(0, set) }
}

// apart is a CPU for the sidecar and one for all others; where there is only one,
// they share it.
func apart(t testing.TB) (sidecar, others *unix.CPUSet) {
	t.Helper()
	var all unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &all))
	var found []int
	for i := 0; i < len(all)*64 && len(found) < 2; i++ {
		if all.IsSet(i) {
			found = append(found, i)
		}
	}
	sidecar, others = new(unix.CPUSet), new(unix.CPUSet)
	sidecar.Set(found[0])
	others.Set(found[len(found)-1])
	return sidecar, others
}

// moveTo binds this process to CPUs until the end of the test.
func moveTo(t testing.TB, set *unix.CPUSet) {
	t.Helper()
	var before unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &before))
	move := func(set *unix.CPUSet) {
		threads, err := os.ReadDir("/proc/self/task")
		must(t, err)
		for _, e := range threads {
			var id int
			_, _ = fmt.Sscan(e.Name(), &id)
			_ = unix.SchedSetaffinity(id, set) // a thread may have ended; what it has started has the set
		}
	}
	move(set)
	t.Cleanup(func() { move(&before) })
}

// cpu is the processor time that the sidecar has had, in units of 10 ms.
func (p *proxy) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	must(p.t, err)
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	var user, system time.Duration
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system) // proc(5)
	must(p.t, err)
	return (user + system) * 10 * time.Millisecond
}
