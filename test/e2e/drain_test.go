// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 net/http's Transport says nothing of GOAWAY

package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// drainEnv is how many seconds a sidecar may drain; the tests' own is short.
const drainEnv = "OUTRIGGER_DRAIN_SECONDS"

// leaver is a sidecar that serves everything, and what stands behind it.
type leaver struct {
	*mesh.Sidecar
	http, tcp string
}

func startLeaver(t *testing.T, app, grpcServer, tcpServer string, seconds int) *leaver {
	t.Helper()
	x := &leaver{http: mesh.FreeAddress(t), tcp: mesh.FreeAddress(t)}
	admin := mesh.FreeAddress(t)
	text := mesh.Bootstrap{
		Admin: admin, Listen: x.http,
		Manager: "          upgrade_configs: [{upgrade_type: websocket}]",
		Routes: `
              - {match: {prefix: /grpc.testing}, route: {cluster: grpc, timeout: 0s}}
` + mesh.AllTo("app", "timeout: 0s"),
		Listeners: mesh.TCPListener("tcp", x.tcp, "tcp"),
		Clusters:  mesh.StaticCluster("app", "", app) + mesh.StaticCluster("grpc", mesh.ToHTTP2, grpcServer) + mesh.StaticCluster("tcp", "", tcpServer),
	}.String()
	x.Sidecar = mesh.StartFile(t, t.TempDir(), text, admin, "--drain-time-s", fmt.Sprint(seconds))
	return x
}

// steps is where new connections go: to the one that leaves, and elsewhere once it has
// begun to, as when it is out of the registry.
type steps struct {
	leaving, staying string
	left             atomic.Bool
}

func (s *steps) dial() (net.Conn, error) {
	if s.left.Load() {
		return net.Dial("tcp", s.staying)
	}
	return net.Dial("tcp", s.leaving)
}

// drainTally counts requests that cannot be repeated.
type drainTally struct {
	mu         sync.Mutex
	sent, told int
	failures   []error
}

func (c *drainTally) note(told bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent++
	if told {
		c.told++
	}
	if err != nil {
		c.failures = append(c.failures, err)
	}
}

// busyHTTP1 sends one request after the other on a connection, and goes on on another
// where the answer says that it closes.
func (c *drainTally) busyHTTP1(t *testing.T, to *steps, stop <-chan struct{}) {
	var h *held
	for {
		select {
		case <-stop:
			return
		default:
		}
		if h == nil {
			conn, err := to.dial()
			if err != nil {
				c.note(false, err)
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			h = newHeld(conn)
		}
		told, err := h.ask("app", "/?ms=10")
		if c.note(told, err); told || err != nil {
			_ = h.conn.Close()
			h = nil
		}
	}
}

// clientHTTP2 follows GOAWAY, and can repeat nothing.
func clientHTTP2(t *testing.T, to *steps) http.RoundTripper {
	tr := &http2.Transport{
		AllowHTTP:      true,
		DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) { return to.dial() },
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func (c *drainTally) busyHTTP2(client http.RoundTripper, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		c.note(false, postOnce(client, "app"))
	}
}

// postOnce sends a request that the client cannot read, and so not send, again.
func postOnce(client http.RoundTripper, host string) error {
	r, err := http.NewRequest(http.MethodPost, "http://"+host+"/?ms=10", struct{ io.Reader }{strings.NewReader("once")})
	if err != nil {
		return err
	}
	a, err := client.RoundTrip(r)
	if err != nil {
		return err
	}
	defer a.Body.Close() //nolint:errcheck // read to its end
	if _, err = io.Copy(io.Discard, a.Body); err == nil && a.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", a.StatusCode)
	}
	return err
}

// whileTold uses a tunnel until it ends and says how long that was, and whether it ended
// in order.
func whileTold(began time.Time, exchange func() error) (lasted time.Duration, end error) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		if err := exchange(); err != nil {
			return lasted, err
		}
		lasted = time.Since(began)
	}
	return 0, nil
}

// errTold is the end of a WebSocket by a Close frame.
var errTold = errors.New("told to go")

// TestADrainEndsEveryProtocolInOrder ends a sidecar in the middle of requests, streams and
// tunnels of all protocols at once. No request fails: who is told to go goes. Streams and
// tunnels go on until the drain is nearly over.
func TestADrainEndsEveryProtocolInOrder(t *testing.T) {
	seconds := 4
	if s := os.Getenv(drainEnv); s != "" {
		if _, err := fmt.Sscan(s, &seconds); err != nil || seconds < 2 {
			t.Fatalf("%s=%q: want at least 2 seconds", drainEnv, s)
		}
	}
	app := mesh.StartApp(t, t.TempDir(), "app")
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	greeter := serveApart(t, server.Serve, server.Stop)
	echo := echoTCP(t)
	x, other := startLeaver(t, app.Address, greeter, echo, seconds), startLeaver(t, app.Address, greeter, echo, seconds)
	to := &steps{leaving: x.http, staying: other.http}

	open := func() *held {
		conn, err := to.dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		h := newHeld(conn)
		if _, err := h.ask("app", "/"); err != nil {
			t.Fatal(err)
		}
		return h
	}
	var idle, late []*held
	for range 20 {
		idle, late = append(idle, open()), append(late, open())
	}
	stop := make(chan struct{})
	var busy sync.WaitGroup
	one, two := &drainTally{}, &drainTally{}
	client := clientHTTP2(t, to)
	for range 20 {
		busy.Go(func() { one.busyHTTP1(t, to, stop) })
	}
	for range 8 {
		busy.Go(func() { two.busyHTTP2(client, stop) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///"+x.http, grpc.WithAuthority("greeter"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close() //nolint:errcheck // nothing is under way
	stream := func() testgrpc.TestService_FullDuplexCallClient {
		s, err := testgrpc.NewTestServiceClient(cc).FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	message := &testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}}}
	talk := func(s testgrpc.TestService_FullDuplexCallClient) error {
		if err := s.Send(message); err != nil && !errors.Is(err, io.EOF) { // Recv says why
			return err
		}
		_, err := s.Recv()
		return err
	}
	ends, stays := stream(), stream()
	for _, s := range []testgrpc.TestService_FullDuplexCallClient{ends, stays} {
		if err := talk(s); err != nil {
			t.Fatal(err)
		}
	}
	ws := mesh.DialWebSocket(t, x.http, "chat", "/ws")
	_ = ws.SetDeadline(time.Now().Add(time.Minute))
	tcp, err := net.Dial("tcp", x.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close() //nolint:errcheck // the test has seen its end
	_ = tcp.SetDeadline(time.Now().Add(time.Minute))
	viaTCP := func() error {
		var b [2]byte
		if _, err := tcp.Write([]byte("hi")); err != nil {
			return err
		}
		_, err := io.ReadFull(tcp, b[:])
		return err
	}
	viaWS := func() error {
		if err := ws.Send(mesh.TextFrame, []byte("hi")); err != nil {
			return err
		}
		opcode, payload, err := ws.Receive()
		if err == nil && opcode == mesh.CloseFrame {
			return fmt.Errorf("%w: closed with %x", errTold, payload)
		}
		return err
	}
	if err := errors.Join(viaTCP(), viaWS()); err != nil {
		t.Fatal(err)
	}
	mesh.Await(t, 20*time.Second, "load", func() error {
		one.mu.Lock()
		defer one.mu.Unlock()
		if one.sent < 100 {
			return fmt.Errorf("%d requests", one.sent)
		}
		return nil
	})

	began := time.Now()
	to.left.Store(true)
	x.Signal(syscall.SIGTERM)
	x.AwaitLog("draining", 1)
	// Those that send within the time for idle connections are answered, and told.
	for i, h := range late {
		if told, err := h.ask("app", "/"); err != nil || !told {
			t.Errorf("late connection %d: told %t, %v", i, told, err)
		}
	}
	var tunnels sync.WaitGroup
	var lasted [3]time.Duration
	var last [3]error
	for i, exchange := range []func() error{viaTCP, viaWS, func() error { return talk(stays) }} {
		tunnels.Go(func() { lasted[i], last[i] = whileTold(began, exchange) })
	}
	for range 5 {
		if err := talk(ends); err != nil {
			t.Errorf("a stream under way: %v", err)
		}
	}
	if err := ends.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := ends.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that ends during the drain: %v", err)
	}
	for i, h := range idle {
		var b [1]byte
		_ = h.conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := h.conn.Read(b[:]); !errors.Is(err, io.EOF) {
			t.Errorf("idle connection %d: %v, want its end", i, err)
		}
	}
	tunnels.Wait()
	if code := x.Wait(time.Minute); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	ended := time.Since(began)
	close(stop)
	busy.Wait()
	for name, c := range map[string]*drainTally{"HTTP/1.1": one, "HTTP/2": two} {
		if len(c.failures) > 0 || c.sent == 0 {
			t.Errorf("%s: %d of %d requests failed: %v", name, len(c.failures), c.sent, c.failures)
		}
	}
	if one.told < 20 {
		t.Errorf("%d of 20 busy connections were told to close", one.told)
	}
	limit := time.Duration(seconds) * time.Second
	for i, name := range []string{"TCP", "WebSocket", "gRPC"} {
		if lasted[i] < limit/2 {
			t.Errorf("%s: cut after %v of a drain of %v: %v", name, lasted[i], limit, last[i])
		}
	}
	if !errors.Is(last[0], io.EOF) && !errors.Is(last[0], syscall.EPIPE) {
		t.Errorf("TCP: ended with %v, want its end", last[0])
	}
	if !errors.Is(last[1], errTold) {
		t.Errorf("WebSocket: ended with %v, want a Close frame", last[1])
	}
	if code := status.Code(last[2]); code != codes.Unavailable {
		t.Errorf("gRPC: ended with %v", last[2])
	}
	mesh.Conformance(t, "D17", "drained in %v of %v: HTTP/1.1 %d requests, HTTP/2 %d, 0 failed; %d connections told; 20 late ones answered, 20 idle ones closed; TCP went on for %v, WebSocket %v, a gRPC stream %v",
		ended.Round(10*time.Millisecond), limit, one.sent, two.sent, one.told+len(late), lasted[0].Round(10*time.Millisecond), lasted[1].Round(10*time.Millisecond), lasted[2].Round(10*time.Millisecond))
}

// echoTCP sends back what comes.
func echoTCP(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); done.Wait() })
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	return l.Addr().String()
}
