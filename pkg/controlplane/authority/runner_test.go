// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a wall clock that a test turns.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)} }

func open(t *testing.T, c Config) *Runner {
	t.Helper()
	r, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// serve accepts TLS connections until the test ends, and echoes.
func serve(t *testing.T, c *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			running.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn) // until the client closes
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return l.Addr().String()
}

// dial makes a connection and says which certificate the other end has.
func dial(t *testing.T, address string, c *tls.Config) (*tls.Conn, string) {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, c)
	if err != nil {
		t.Fatal(err)
	}
	return conn, conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func echo(conn *tls.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func TestTheServingCertificateIsRenewedWithoutARestart(t *testing.T) {
	c := newClock()
	r := open(t, Config{Dir: t.TempDir(), Now: c.Now})
	address := serve(t, r.ServerTLS())
	client := func() *tls.Config {
		return &tls.Config{
			InsecureSkipVerify: true, //nolint:gosec // verified below, by identity
			VerifyConnection: func(s tls.ConnectionState) error {
				id, err := identity.VerifyPeer(c.Now(), s.PeerCertificates, r.Authority().Bundle().Pool, identity.DefaultTrustDomain)
				if err == nil && id != identity.ControlPlaneID(identity.DefaultTrustDomain) {
					err = errors.New("it is " + id.String())
				}
				return err
			},
		}
	}
	old, first := dial(t, address, client())
	defer func() { _ = old.Close() }()
	r.tick()
	again, same := dial(t, address, client())
	_ = again.Close()
	if same != first {
		t.Error("renewed before it was due")
	}
	c.add(12 * time.Hour)
	if wait := r.tick(); wait <= 0 || wait > maxWait {
		t.Errorf("comes again in %v", wait)
	}
	fresh, second := dial(t, address, client())
	defer func() { _ = fresh.Close() }()
	if second == first {
		t.Error("not renewed at half of its life")
	}
	for _, conn := range []*tls.Conn{old, fresh} {
		if err := echo(conn); err != nil {
			t.Errorf("a connection broke: %v", err)
		}
	}
	if v := fresh.ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("TLS version %x", v)
	}
	if _, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil { //nolint:gosec // must fail
		t.Error("TLS 1.2 is let in")
	}
}

func TestARunnerDoesWhatIsDueByItself(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	r := open(t, Config{Dir: dir, Now: c.Now})
	if err := r.Rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	c.add(time.Hour)
	changed, stop := r.Authority().Changes()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { r.Run(ctx); close(ended) }() // ends with cancel
	defer func() { cancel(); <-ended }()
	// What the first step did not change of the bundle shows by the next that does.
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for r.Status().Roots[0].Phase != identity.Retiring {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("nothing happened: %+v", r.Status().Roots)
		}
	}
	if again := open(t, Config{Dir: dir, Now: c.Now}); again.Status().Bundle != r.Status().Bundle {
		t.Error("the disk holds another state")
	}
	select {
	case <-changed:
		t.Error("the bundle did not change: both roots are still in it")
	default:
	}
}

func TestRefusalsAreCountedAndTheLogIsBounded(t *testing.T) {
	var b bytes.Buffer
	c := newClock()
	r := open(t, Config{Dir: t.TempDir(), Now: c.Now, Logger: slog.New(slog.NewTextHandler(&b, nil))})
	for range 1000 {
		r.Refused("192.0.2.1", identity.ReasonExpired, errors.New("expired"))
	}
	if n := strings.Count(b.String(), "refused"); n != maxRefusalLines {
		t.Errorf("%d lines", n)
	}
	if n := r.RefusedCallers()[identity.ReasonExpired]; n != 1000 {
		t.Errorf("counted %d", n)
	}
	c.add(time.Second)
	r.Refused("192.0.2.1", identity.ReasonExpired, errors.New("expired"))
	if n := strings.Count(b.String(), "caller refused"); n != maxRefusalLines {
		t.Errorf("in the next second: %d lines", n)
	}
}

func TestFilesOfAnOutsideAuthorityMustBeThere(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []Config{
		{CertificateFile: "x"}, {KeyFile: "x"}, {RootFile: "x"},
		{CertificateFile: filepath.Join(dir, "none"), KeyFile: filepath.Join(dir, "none")},
	} {
		c.Dir = filepath.Join(dir, "ca")
		if _, err := Open(c); err == nil {
			t.Errorf("%+v: opened", c)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "ca")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder was made: %v", err)
	}
	if _, err := Open(Config{Dir: filepath.Join(dir, "other"), TrustDomain: "one.example"}); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Dir: filepath.Join(dir, "other"), TrustDomain: "two.example"})
	if err == nil || !strings.Contains(err.Error(), "trust domain one.example, not two.example") {
		t.Errorf("got %v", err)
	}
}
