// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stream writes until it is closed.
type stream struct {
	done chan struct{}
	once sync.Once
}

func (s *stream) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "data: 1\n")
	_ = http.NewResponseController(w).Flush()
	<-s.done
}

func (s *stream) Close() { s.once.Do(func() { close(s.done) }) }

func TestClosingEndsStreamsAndIdleConnections(t *testing.T) {
	p := open(t, func(c *Config) { c.Hystrix = &stream{done: make(chan struct{})} })
	resp, err := p.client.Get("http://" + p.s.Addr() + "/hystrix.stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	br := bufio.NewReader(resp.Body)
	if line, err := br.ReadString('\n'); err != nil || line != "data: 1\n" {
		t.Fatalf("%q %v", line, err)
	}
	p.want("GET", "/ready", 200, "LIVE\n") // leaves an idle connection
	silent, err := net.Dial("tcp", p.s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	if err := p.s.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := br.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("the stream did not end: %v", err)
	}
	if c, err := net.Dial("tcp", p.s.Addr()); err == nil {
		_ = c.Close()
		t.Error("the port is still open")
	}
}

func TestAddresses(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, c := range []struct {
		name, address, token, want string
		busy                       bool
	}{
		{name: "no port", address: "127.0.0.1", want: "want HOST:PORT or unix:PATH"},
		{name: "no host", address: ":15000", want: "the host is missing"},
		{name: "all addresses without a token", address: "0.0.0.0:0", want: "callers need a token"},
		{name: "a token file that is not there", address: "0.0.0.0:0", token: "/nonexistent", want: "no such file"},
		{name: "a short token", address: "0.0.0.0:0", token: short, want: "shorter than 16"},
		{name: "busy", address: busy.Addr().String(), busy: true, want: "in use"},
		{name: "no path", address: "unix:", want: "the path is missing"},
		{name: "abstract", address: "unix:@x", want: "no permissions"},
		{name: "a file that is no socket", address: "unix:" + token, busy: true, want: "in use"},
		{name: "all addresses with a token", address: "0.0.0.0:0", token: token},
		{name: "loopback of IPv6", address: "[::1]:0"},
		{name: "localhost", address: "localhost:0"},
	} {
		s, err := New(Config{Address: c.address, TokenFile: c.token, Proxy: &fixed{}, State: func() State { return Live }})
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			if err := s.Close(context.Background()); err != nil {
				t.Errorf("%s: close: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.address) {
			t.Errorf("%s: got %v, want an error with %q and the address", c.name, err, c.want)
		}
		if c.busy && !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: %v is not EADDRINUSE", c.name, err)
		}
	}
}

func TestAUnixSocketIsPrivateAndReplacesADeadOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	p := open(t, func(c *Config) { c.Address = "unix:" + path })
	if p.s.Addr() != "unix:"+path {
		t.Errorf("address %q", p.s.Addr())
	}
	p.want("GET", "/ready", 200, "LIVE\n")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := New(Config{Address: "unix:" + path, Proxy: &fixed{}, State: func() State { return Live }}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second server on the socket: %v", err)
	}
}

// A successor that gives up must not take the file away that the process before serves on.
func TestTheFileOfAnInheritedSocketStaysUntilItIsTheServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	for _, owns := range []bool{false, true} {
		bound, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		bound.(*net.UnixListener).SetUnlinkOnClose(false)
		s, err := New(Config{Address: "unix:" + path, Listener: bound, Proxy: &fixed{}, State: func() State { return Live }})
		if err != nil {
			t.Fatal(err)
		}
		if owns {
			s.Own()
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) != owns {
			t.Errorf("a server that owns the file, %v, ended: %v", owns, err)
		}
		_ = os.Remove(path)
	}
}
