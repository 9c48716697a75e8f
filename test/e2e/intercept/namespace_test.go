// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/outrigger-mesh/outrigger/internal/programs"
)

// How long anything may take before a test fails.
const patience = 20 * time.Second

// The programs are built once; skipReason is why, where the host forbids namespaces.
var sidecarBinary, controlPlaneBinary, skipReason string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if skipReason = forbidden(); skipReason != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "intercept")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // another user runs the program too
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	sidecarBinary = filepath.Join(dir, "sidecar")
	controlPlaneBinary = filepath.Join(dir, "controlplane")
	if err := programs.Build(context.Background(), dir, "cmd/sidecar", "cmd/controlplane"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// forbidden says why these tests cannot run here.
func forbidden() string {
	if os.Geteuid() != 0 {
		return "needs root, to make network namespaces"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "needs the program ip (package iproute2)"
	}
	name := fmt.Sprintf("orprobe%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		return "this host forbids network namespaces: " + strings.TrimSpace(string(out))
	}
	_ = exec.Command("ip", "netns", "del", name).Run()
	return ""
}

func needTool(t *testing.T, tool string) {
	t.Helper()
	if skipReason != "" {
		t.Skip(skipReason)
	}
	programs := map[string][]string{"nft": {"nft"}, "iptables": {"iptables-restore", "ip6tables-restore", "iptables-save"}}
	for _, p := range programs[tool] {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// The addresses of the two namespaces.
const (
	appV4, peerV4 = "10.77.0.1", "10.77.0.2"
	appV6, peerV6 = "fd77::1", "fd77::2"
)

// world is a namespace with an application in it, and one elsewhere, joined by a cable.
type world struct{ app, peer string }

var worlds atomic.Int64

func newWorld(t *testing.T) *world {
	t.Helper()
	if skipReason != "" {
		t.Skip(skipReason)
	}
	id := fmt.Sprintf("%d-%d", os.Getpid(), worlds.Add(1))
	w := &world{app: "or-app-" + id, peer: "or-peer-" + id}
	for _, ns := range []string{w.app, w.peer} {
		run(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { run(t, "ip", "netns", "del", ns) })
	}
	run(t, "ip", "-n", w.app, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", w.peer)
	for _, side := range []struct{ ns, v4, v6, gateway4, gateway6 string }{
		{w.app, appV4, appV6, peerV4, peerV6},
		{w.peer, peerV4, peerV6, appV4, appV6},
	} {
		run(t, "ip", "-n", side.ns, "link", "set", "lo", "up")
		run(t, "ip", "-n", side.ns, "link", "set", "eth0", "up")
		run(t, "ip", "-n", side.ns, "addr", "add", side.v4+"/24", "dev", "eth0")
		run(t, "ip", "-n", side.ns, "addr", "add", side.v6+"/64", "dev", "eth0", "nodad")
		run(t, "ip", "-n", side.ns, "route", "add", "default", "via", side.gateway4)
		run(t, "ip", "-n", side.ns, "-6", "route", "add", "default", "via", side.gateway6)
	}
	return w
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// intercept runs the command in the application's namespace.
func (w *world) intercept(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, append([]string{"ip", "netns", "exec", w.app, sidecarBinary, "intercept"}, args...)...)
}

// ruleset is every rule that packets of the application's namespace meet.
func (w *world) ruleset(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, c := range [][]string{{"nft", "list", "ruleset", "inet"}, {"iptables-save"}, {"ip6tables-save"}} {
		if _, err := exec.LookPath(c[0]); err != nil {
			continue
		}
		for line := range strings.Lines(run(t, append([]string{"ip", "netns", "exec", w.app}, c...)...)) {
			// Comments have dates, and the kernel's chains counters; neither is a rule.
			if !strings.HasPrefix(line, "#") && !(strings.HasPrefix(line, ":") && !strings.Contains(line, "OUTRIGGER")) {
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

// who runs a piece of a test; the zero value is root.
type who struct{ uid, gid int }

var (
	application = who{1000, 1000}
	theSidecar  = who{65532, 65532}
)

// in runs f on a thread of that namespace, whose sockets belong to that user.
func in(t *testing.T, ns string, as who, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			file, err := os.Open("/run/netns/" + ns)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			if err := unix.Setfsgid(as.gid); err != nil {
				return err
			}
			if err := unix.Setfsuid(as.uid); err != nil {
				return err
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// listen accepts in a namespace and says to each client where it arrived:
// its name, and the original destination.
func (w *world) listen(t *testing.T, ns, name, address string, transparent bool) {
	t.Helper()
	var l net.Listener
	in(t, ns, who{}, func() (err error) {
		c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			if !transparent {
				return nil
			}
			return control(raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1) })
		}}
		l, err = c.Listen(context.Background(), "tcp", address)
		return err
	})
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "%s %s", name, originalDestination(c.(*net.TCPConn)))
			c.Close()
		}
	}()
}

func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if failed := raw.Control(func(fd uintptr) { err = f(int(fd)) }); failed != nil {
		return failed
	}
	return err
}

// originalDestination is SO_ORIGINAL_DST, or without NAT the local address.
func originalDestination(c *net.TCPConn) string {
	const soOriginalDst = 80
	local := c.LocalAddr().(*net.TCPAddr)
	raw, err := c.SyscallConn()
	if err != nil {
		return err.Error()
	}
	var b [28]byte // sockaddr_in6; sockaddr_in is shorter
	level := unix.SOL_IP
	if local.IP.To4() == nil {
		level = unix.SOL_IPV6
	}
	err = control(raw, func(fd int) error {
		n := uint32(len(b))
		if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst, uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)), 0); e != 0 {
			return e
		}
		return nil
	})
	if err != nil {
		return local.String()
	}
	ip := net.IP(b[4:8])
	if level == unix.SOL_IPV6 {
		ip = net.IP(b[8:24])
	}
	return net.JoinHostPort(ip.String(), fmt.Sprint(int(b[2])<<8|int(b[3])))
}

// reach connects as a user and returns what the listener says.
func (w *world) reach(t *testing.T, ns string, as who, address string) string {
	t.Helper()
	var said []byte
	in(t, ns, as, func() error {
		c, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			said = []byte(err.Error())
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		b := make([]byte, 256)
		n, err := c.Read(b)
		said = b[:n]
		return err
	})
	return string(said)
}
