// SPDX-License-Identifier: Apache-2.0

package grpcdial

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a real gRPC server that remembers the tokens it was sent.
type server struct {
	mu     sync.Mutex
	tokens []string
}

func (s *server) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) == 0 {
		return ""
	}
	return s.tokens[len(s.tokens)-1]
}

func serve(t *testing.T, listener net.Listener) *server {
	t.Helper()
	s := &server{}
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		s.mu.Lock()
		s.tokens = append(s.tokens, strings.Join(md.Get("authorization"), ","))
		s.mu.Unlock()
		return next(ctx, r)
	}))
	healthv1.RegisterHealthServer(g, health.NewServer())
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(listener) })
	t.Cleanup(func() { g.Stop(); serving.Wait() })
	return s
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func check(t *testing.T, c Config) error {
	t.Helper()
	conn, err := Dial(c)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

func TestACallReachesAServerOverEachKindOfAddress(t *testing.T) {
	tcp := listen(t, "tcp", "127.0.0.1:0")
	serve(t, tcp)
	path := filepath.Join(t.TempDir(), "xds.sock")
	serve(t, listen(t, "unix", path))
	_, port, _ := net.SplitHostPort(tcp.Addr().String())
	// A proxy of the environment must not be used: it is likely the sidecar itself.
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("https_proxy", "http://127.0.0.1:1")
	for _, target := range []string{tcp.Addr().String(), "localhost:" + port, "unix:" + path, "unix://" + path} {
		if err := check(t, Config{Target: target}); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestTheTokenIsReadAnewForEachCall(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0")
	s := serve(t, l)
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := Config{Target: l.Addr().String(), TokenFile: file}
	for _, token := range []string{"first", "second"} {
		write(token + "\n")
		if err := check(t, c); err != nil {
			t.Fatal(err)
		}
		if got := s.last(); got != "Bearer "+token {
			t.Errorf("the server was sent %q, want %q", got, "Bearer "+token)
		}
	}
	write("two words")
	if err := check(t, c); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "visible ASCII") {
		t.Errorf("got %v, want the bad token named", err)
	}
}

func TestATokenFileThatIsNoTokenIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct{ name, text, want string }{
		{"empty", " \n", "is empty"},
		{"two lines", "a\nb", "visible ASCII"},
		{"binary", "a\x00", "visible ASCII"},
		{"huge", strings.Repeat("a", maxTokenBytes+1), "the limit is 16384"},
	} {
		path := filepath.Join(dir, tc.name)
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadToken(path); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	if _, err := ReadToken(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the file does not exist", err)
	}
}

func TestATargetThatCannotWorkIsRefusedAtOnce(t *testing.T) {
	for _, tc := range []struct {
		target    string
		plaintext bool
		want      string
	}{
		{"", true, "want HOST:PORT or unix:PATH"},
		{"controlplane", true, "want HOST:PORT or unix:PATH"},
		{":15010", true, "want HOST:PORT or unix:PATH"},
		{"unix:", true, "want a path"},
		{"10.0.0.1:15010", false, "--insecure-xds"},
		{"169.254.169.254:80", true, "never dialled"},
		{"[::ffff:169.254.169.254]:80", true, "never dialled"},
		{"[fe80::1]:80", true, "never dialled"},
		{"[fd00:ec2::254]:80", true, "never dialled"},
		{"100.100.100.200:80", true, "never dialled"},
		{"0.0.0.0:80", true, "never dialled"},
		{"224.0.0.1:80", true, "never dialled"},
	} {
		conn, err := Dial(Config{Target: tc.target, AllowPlaintext: tc.plaintext})
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.target, err, tc.want)
		}
	}
}

func TestANameCannotLeadWhereAnAddressMayNot(t *testing.T) {
	// What a name resolved to comes to the dialer as an address.
	dial := dialer(false)
	for address, want := range map[string]error{
		"169.254.169.254:80": ErrForbiddenAddress,
		"192.0.2.1:80":       ErrPlaintext,
	} {
		if _, err := dial(t.Context(), address); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", address, err, want)
		}
	}
	if err := checkAddr(netip.MustParseAddr("192.0.2.1"), true); err != nil {
		t.Errorf("plaintext that is allowed: %v", err)
	}
}

func TestBackoffGrowsToItsMaximumWithJitter(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	seen := make(map[time.Duration]bool)
	for i, whole := range []int{100, 200, 400, 800, 1000, 1000} {
		got, high := b.Next(), time.Duration(whole)*time.Millisecond
		if got < high/2 || got > high {
			t.Errorf("wait %d is %v, want %v to %v", i, got, high/2, high)
		}
		seen[got] = true
	}
	if len(seen) < 3 {
		t.Errorf("waits %v have no jitter", seen)
	}
	b.Reset()
	if got := b.Next(); got > 100*time.Millisecond {
		t.Errorf("after Reset the wait is %v, want at most 100ms", got)
	}
	var zero Backoff
	if got := zero.Next(); got < DefaultMinBackoff/2 || got > DefaultMinBackoff {
		t.Errorf("the zero value waits %v, want about %v", got, DefaultMinBackoff)
	}
}

func TestTheNextAddressIsTriedWhereOneIsDead(t *testing.T) {
	dead := listen(t, "tcp", "127.0.0.1:0")
	gone := dead.Addr().String()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l)
	path := filepath.Join(t.TempDir(), "xds.sock")
	serve(t, listen(t, "unix", path))
	for _, living := range []string{l.Addr().String(), "unix:" + path} {
		c := Config{Target: gone, Alternatives: []string{"unix:" + path + ".none", living}}
		if err := check(t, c); err != nil {
			t.Errorf("%s behind dead addresses: %v", living, err)
		}
	}
	if err := check(t, Config{Target: gone, Alternatives: []string{"169.254.169.254:80"}}); !errors.Is(err, ErrForbiddenAddress) {
		t.Errorf("an alternative that may not be dialled: %v", err)
	}
}
