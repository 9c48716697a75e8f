// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// start runs a program of the project in a namespace as a user, until the test ends.
func (w *world) start(t *testing.T, ns string, as who, argv ...string) {
	t.Helper()
	var output bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}}
	in(t, ns, who{}, cmd.Start)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		limit := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		limit.Stop()
		if err != nil || t.Failed() {
			t.Logf("%s: %v\n%s", filepath.Base(argv[0]), err, output.String())
		}
	})
}

// folder is a folder of that user's.
func folder(t *testing.T, as who) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "intercept-data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, as.uid, as.gid); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serveHTTP answers requests with a name and the Host that was asked for.
func (w *world) serveHTTP(t *testing.T, ns, name, address string) {
	t.Helper()
	var l net.Listener
	in(t, ns, who{}, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(rw, "%s for %s", name, r.Host)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { s.Close(); <-ended })
}

// get sends a request to an address and returns status and body, or what failed.
func (w *world) get(t *testing.T, ns string, as who, address, host string) string {
	t.Helper()
	said := ""
	in(t, ns, as, func() error {
		c, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			said = err.Error()
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			said = err.Error()
			return nil
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		said = fmt.Sprintf("%d %s", r.StatusCode, body)
		return nil
	})
	return said
}

// resolve asks the namespace's resolver for an IPv4 address of a name.
func (w *world) resolve(t *testing.T, ns string, as who, resolver, name string) (ip netip.Addr) {
	t.Helper()
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	raw, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	in(t, ns, as, func() error {
		c, err := net.Dial("udp", resolver)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write(raw)
		b := make([]byte, 4096)
		n, err := c.Read(b)
		var m dnsmessage.Message
		if err != nil || m.Unpack(b[:n]) != nil || len(m.Answers) == 0 {
			return nil // not yet
		}
		if a, ok := m.Answers[0].Body.(*dnsmessage.AResource); ok {
			ip = netip.AddrFrom4(a.A)
		}
		return nil
	})
	return ip
}

// await asks until the answer is as wanted.
func await(t *testing.T, what, want string, ask func() string) {
	t.Helper()
	got := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if got = ask(); got == want {
			return
		}
	}
	t.Fatalf("%s: %q, want %q", what, got, want)
}

func TestAnApplicationThatKnowsNothingOfTheMeshCallsByName(t *testing.T) {
	t.Parallel()
	eachTool(t, func(t *testing.T, w *world, tool string) {
		w.serveHTTP(t, w.peer, "payments", "127.0.0.1:8080")
		w.serveHTTP(t, w.app, "shop", "127.0.0.1:8080")
		w.start(t, w.peer, theSidecar, controlPlaneBinary, "serve", "--data", folder(t, theSidecar),
			"--http", peerV4+":15014", "--xds", peerV4+":15010", "--insecure", "--insecure-xds")
		w.start(t, w.peer, theSidecar, sidecarBinary, "--service", "payments", "--id", "payments-1", "--app", "127.0.0.1:8080",
			"--controlplane", peerV4+":15010", "--insecure-xds", "--inbound", peerV4+":15006", "--data", folder(t, theSidecar), "--concurrency", "1")
		w.intercept(t, "--tool", tool, "--dns", "127.0.0.1:15053")
		w.start(t, w.app, theSidecar, sidecarBinary, "--service", "shop", "--id", "shop-1", "--app", "127.0.0.1:8080",
			"--controlplane", peerV4+":15010", "--insecure-xds", "--inbound", appV4+":15006", "--data", folder(t, theSidecar), "--concurrency", "1",
			"--dns", "127.0.0.1:15053")

		var virtual netip.Addr
		await(t, "a virtual address for payments", "true", func() string {
			virtual = w.resolve(t, w.app, application, peerV4+":53", "payments")
			return fmt.Sprint(virtual.IsValid() && netip.MustParsePrefix("240.240.0.0/16").Contains(virtual))
		})
		await(t, "outbound", "200 payments for payments", func() string {
			return w.get(t, w.app, application, virtual.String()+":80", "payments")
		})
		if got := w.get(t, w.app, application, virtual.String()+":80", "nobody"); !strings.HasPrefix(got, "404") {
			t.Errorf("a name that nobody has: %q, want 404 of the sidecar", got)
		}
		await(t, "inbound", "200 shop for shop", func() string {
			return w.get(t, w.peer, who{}, appV4+":8080", "shop")
		})
		w.intercept(t, "--remove")
		if got := w.get(t, w.peer, who{}, appV4+":8080", "shop"); strings.HasPrefix(got, "200") {
			t.Errorf("without rules the application, which listens on loopback, answers from elsewhere: %q", got)
		}
	})
}
