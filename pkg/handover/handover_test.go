// SPDX-License-Identifier: Apache-2.0

package handover_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/handover"
)

// ends are both ends of a hand-over.
func ends(t *testing.T) (parent, successor *handover.Link) {
	t.Helper()
	parent, file, err := handover.Pair()
	if err != nil {
		t.Fatal(err)
	}
	if successor, err = handover.FromFile(file); err != nil {
		t.Fatal(err)
	}
	if parent.SetPeer(7); parent.Peer() != 7 {
		t.Errorf("process %d", parent.Peer())
	}
	for _, l := range []*handover.Link{parent, successor} {
		if err := l.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() }) // the test may have
	}
	return parent, successor
}

func TestSocketsLockAndConnectionsGoOverInOrder(t *testing.T) {
	parent, successor := ends(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.CreateTemp(t.TempDir(), "lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	told := netip.MustParseAddrPort("10.0.0.1:80")
	offered := make(chan error, 1)
	counters := map[string]uint64{} // more than one message holds, some of odd names
	for i := range 5000 {
		counters[fmt.Sprintf("cluster.%d.upstream_rq_total", i)] = uint64(i)
		counters[fmt.Sprintf("http.<\"\x00\u2028é%d>.downstream_rq_total", i)] = uint64(i)
	}
	go func() {
		offered <- func() error {
			hello, err := parent.Greet("node")
			if err != nil || hello.Build != "build" {
				return errors.Join(err, errors.New("hello of "+hello.Build))
			}
			fd, err := handover.Duplicate(listener.(*net.TCPListener))
			if err != nil {
				return err
			}
			many := make([]handover.File, handover.MaxFiles+2)
			for i := range many {
				many[i] = handover.File{Socket: handover.Socket{Use: handover.UseListener, Address: listener.Addr().String()}, FD: fd}
			}
			if err := parent.SendSockets(many, 4); err != nil {
				return err
			}
			handover.CloseAll([]int{fd})
			if err := parent.AwaitReady(); err != nil {
				return err
			}
			names, err := parent.Go(lock)
			if err != nil || len(names) != 1 || names[0] != "in" {
				return errors.Join(err, errors.New(strings.Join(names, ",")))
			}
			if err := parent.GiveCounters(counters); err != nil {
				return err
			}
			conns := []handover.Conn{{Listener: "in", ToldLocal: told, Requests: 3, Age: 2, Idle: 1}}
			if n, err := parent.GiveConns(conns, []int{int(lock.Fd())}); n != 1 || err != nil {
				return errors.Join(err, errors.New("not given"))
			}
			if err := parent.GiveCounters(map[string]uint64{"cluster.7.upstream_rq_total": 1 << 63}); err != nil {
				return err
			}
			return parent.SendDone()
		}()
	}()
	files, epoch, err := successor.Ask("node", "build")
	if err != nil {
		t.Fatal(err, <-offered)
	}
	if len(files) != handover.MaxFiles+2 || epoch != 4 {
		t.Fatalf("%d sockets, epoch %d", len(files), epoch)
	}
	got, err := net.FileListener(os.NewFile(uintptr(files[0].FD), "l"))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	handover.CloseFiles(files[1:])
	_ = listener.Close() // it lives on in the successor
	dialled, err := net.Dial("tcp", files[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	_ = dialled.Close()
	if c, err := got.Accept(); err != nil {
		t.Fatal(err)
	} else {
		_ = c.Close()
	}
	file, err := successor.Ready()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := successor.Serve([]string{"in"}); err != nil {
		t.Fatal(err)
	}
	taken, counted := 0, []map[string]uint64(nil)
	err = successor.TakeConns(func(conns []handover.Conn, fds []int) {
		taken += len(conns)
		if c := conns[0]; c.Listener != "in" || c.ToldLocal != told || c.Requests != 3 || c.Age != 2 || c.Idle != 1 || c.Remote.IsValid() {
			t.Errorf("%+v", c)
		}
		handover.CloseAll(fds)
	}, func(now map[string]uint64) { counted = append(counted, now) })
	if err != nil || taken != 1 {
		t.Errorf("%d connections, %v", taken, err)
	}
	if len(counted) != 2 || !maps.Equal(counted[0], counters) || len(counted[1]) != len(counters) || counted[1]["cluster.7.upstream_rq_total"] != 1<<63 {
		t.Errorf("counters came %d times", len(counted))
	}
	if err := <-offered; err != nil {
		t.Error(err)
	}
	_ = lock.Close() // the parent ends
	again, err := os.Open(lock.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := syscall.Flock(int(again.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("the folder was free for a moment: %v", err)
	}
}

// A process that knows nothing of counters hands over, and takes over, without them.
func TestCountersNeedBothEnds(t *testing.T) {
	for _, knows := range []bool{true, false} {
		parent, successor := ends(t)
		gone := make(chan error, 1)
		go func() { // ends with the hand-over
			gone <- func() error {
				if _, err := parent.Greet(""); err != nil {
					return err
				}
				if err := parent.AwaitReady(); err != nil {
					return err
				}
				if _, err := parent.Go(nil); err != nil {
					return err
				}
				if err := parent.GiveCounters(map[string]uint64{"a": 1}); err != nil {
					return err
				}
				return parent.SendDone()
			}()
		}()
		if err := successor.Send(&handover.Message{Kind: handover.Hello, Version: handover.Version, Counted: knows}); err != nil {
			t.Fatal(err)
		}
		if _, err := successor.Ready(); err != nil {
			t.Fatal(err)
		}
		if err := successor.Serve(nil); err != nil {
			t.Fatal(err)
		}
		var counted []map[string]uint64
		err := successor.TakeConns(nil, func(now map[string]uint64) { counted = append(counted, now) })
		if want := map[bool]int{true: 1}[knows]; err != nil || len(counted) != 1 || len(counted[0]) != want {
			t.Errorf("asked for: %t: %v, %v", knows, counted, err)
		}
		if err := <-gone; err != nil {
			t.Error(err)
		}
	}
}

func TestAnotherVersionOrNodeGetsNothingAndIsToldWhy(t *testing.T) {
	for name, hello := range map[string]handover.Message{
		"version 3:": {Kind: handover.Hello, Version: 3, Node: "node"},
		`"other"`:    {Kind: handover.Hello, Version: handover.Version, Node: "other"},
	} {
		parent, successor := ends(t)
		if err := successor.Send(&hello); err != nil {
			t.Fatal(err)
		}
		if _, err := parent.Greet("node"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v says nothing of %s", err, name)
		}
		m, _, err := successor.Receive()
		if err != nil || m.Kind != handover.Refused || !strings.Contains(m.Reason, name) {
			t.Errorf("%+v, %v", m, err)
		}
	}
	parent, successor := ends(t)
	go func() { _ = parent.Refuse("so it is") }()
	var refused *handover.RefusedError
	if _, _, err := successor.Ask("node", ""); !errors.As(err, &refused) || refused.Reason != "so it is" {
		t.Errorf("%v", err)
	}
}

func TestWhatIsNotDueEndsTheHandOver(t *testing.T) {
	parent, successor := ends(t)
	if err := successor.Send(&handover.Message{Kind: handover.Serving}); err != nil {
		t.Fatal(err)
	}
	if err := parent.AwaitReady(); err == nil || !strings.Contains(err.Error(), "serving where ready was due") {
		t.Errorf("%v", err)
	}
	_ = successor.Close()
	if err := parent.AwaitReady(); !errors.Is(err, io.EOF) {
		t.Errorf("after the successor's end: %v", err)
	}
}

// A parent that gives up as its successor would begin to serve is the one that serves.
func TestASuccessorServesOnlyOnceItsParentHasAgreed(t *testing.T) {
	parent, successor := ends(t)
	served := make(chan error, 1)
	go func() { served <- successor.Serve([]string{"in"}) }()
	if m, _, err := parent.Receive(); err != nil || m.Kind != handover.Serving {
		t.Fatalf("%+v, %v", m, err)
	}
	_ = parent.Close() // it has waited long enough, and serves on
	if err := <-served; !errors.Is(err, io.EOF) {
		t.Errorf("it serves beside its parent: %v", err)
	}
}

func TestDescriptorsThatWereNotAnnouncedAreClosed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	link, err := handover.FromFile(os.NewFile(uintptr(fds[0]), "link"))
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	if err := syscall.Sendmsg(fds[1], []byte(`{"kind":"ready"}`), syscall.UnixRights(int(w.Fd()), int(w.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, _, err := link.Receive(); err == nil || !strings.Contains(err.Error(), "2 descriptors for 0 entries") {
		t.Errorf("%v", err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) { // only when all copies are closed
		t.Errorf("%d, %v", n, err)
	}
	if err := syscall.Sendmsg(fds[1], make([]byte, handover.MaxMessage+2), nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := link.Receive(); err == nil || !strings.Contains(err.Error(), "larger than is allowed") {
		t.Errorf("%v", err)
	}
	_ = syscall.Close(fds[1])
}

func TestASocketInADeepFolderIsForItsUserAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "handover")
	if _, err := handover.Dial(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v", err)
	}
	for range 2 { // in the place of one that is there
		l, err := handover.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", info.Mode(), err)
		}
		knocked := make(chan error, 1)
		go func() {
			link, err := handover.Dial(path)
			if err == nil {
				err = link.Close()
			}
			knocked <- err
		}()
		link, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if link.Peer() != os.Getpid() {
			t.Errorf("from process %d", link.Peer())
		}
		if err := errors.Join(<-knocked, link.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := handover.Dial(path); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// knockEnv makes the test binary knock at a path, as whoever it runs as.
const knockEnv = "OUTRIGGER_TEST_KNOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(knockEnv); path != "" {
		c, err := net.Dial("unixpacket", path) // handover.Dial would refuse the other end itself
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = c.Read(make([]byte, 1))
		}
		if errors.Is(err, io.EOF) {
			os.Exit(3) // shut out
		}
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestAnotherUserIsShutOut(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	dir, err := os.MkdirTemp("/tmp", "handover") // a folder that others may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path, program := filepath.Join(dir, "handover"), filepath.Join(dir, "knock")
	binary, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(program, binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := handover.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o777)); err != nil { // worse than it is
		t.Fatal(err)
	}
	let := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		let <- err
	}()
	c := exec.Command(program)
	c.Env = []string{knockEnv + "=" + path}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("%v: %s", err, out)
	}
	_ = l.Close()
	if err := <-let; !errors.Is(err, net.ErrClosed) {
		t.Errorf("let in: %v", err)
	}
}

func TestMessagesThatSayNonsenseAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                  "EOF",
		`{`:                 "unexpected EOF",
		`[]`:                "cannot unmarshal",
		`{"kind":"ready"}x`: "something follows",
		`{"kind":"other"}`:  `kind "other" is none of version 2`,
		`{}`:                `kind ""`,
		`{"kind":"sockets","sockets":[{"use":"listener","address":"a"}]}`:              "0 descriptors for 1 entries",
		`{"kind":"sockets","sockets":[{"use":"listener"}]}`:                            "sockets[0]: address: required",
		`{"kind":"sockets","epoch":-1}`:                                                "epoch: -1",
		`{"kind":"connections","connections":[{}]}`:                                    "connections[0]: listener: required",
		`{"kind":"connections","connections":[{"listener":"a","age":-1}]}`:             "age",
		`{"kind":"connections","connections":[{"listener":"a","idle":1}]}`:             "idle",
		`{"kind":"connections","connections":[{"listener":"a","remote":"x"}]}`:         "message",
		`{"kind":"ready","reason":"` + strings.Repeat("x", handover.MaxMessage) + `"}`: "at most",
	} {
		if _, err := handover.Decode([]byte(text), 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v does not say %q", text, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"kind":"hello","version":1,"node":"a~b","pid":7}`), 0)
	f.Add([]byte(`{"kind":"sockets","sockets":[{"use":"listener","address":"127.0.0.1:80"}],"more":true}`), 1)
	f.Add([]byte(`{"kind":"connections","connections":[{"listener":"in","remote":"127.0.0.1:4","toldLocal":"[::1]:5","requests":3,"age":2,"idle":1}]}`), 1)
	f.Add([]byte(`{"kind":"go"}`), 1)
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		m, err := handover.Decode(b, files)
		if err != nil {
			return
		}
		if m.Kind == handover.Conns && len(m.Conns) != files || m.Kind == handover.Sockets && len(m.Sockets) != files {
			t.Fatalf("%d descriptors for %+v", files, m)
		}
		out, err := m.Encode(files)
		if err != nil {
			return // longer than what came in, as numbers are spelt out
		}
		if _, err := handover.Decode(out, files); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	})
}
