// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// interopCases are grpc-go's interoperability tests that need no credentials, and
// the two that last: many large calls on one connection, and on one each.
var interopCases = map[string]func(context.Context, *grpc.ClientConn){
	"empty_unary":                 client(interop.DoEmptyUnaryCall),
	"large_unary":                 client(interop.DoLargeUnaryCall),
	"client_streaming":            client(interop.DoClientStreaming),
	"server_streaming":            client(interop.DoServerStreaming),
	"ping_pong":                   client(interop.DoPingPong),
	"empty_stream":                client(interop.DoEmptyStream),
	"timeout_on_sleeping_server":  client(interop.DoTimeoutOnSleepingServer),
	"cancel_after_begin":          client(interop.DoCancelAfterBegin),
	"cancel_after_first_response": client(interop.DoCancelAfterFirstResponse),
	"custom_metadata":             client(interop.DoCustomMetadata),
	"status_code_and_message":     client(interop.DoStatusCodeAndMessage),
	"special_status_message":      client(interop.DoSpecialStatusMessage),
	"pick_first_unary": func(ctx context.Context, cc *grpc.ClientConn) {
		interop.DoPickFirstUnary(ctx, testgrpc.NewTestServiceClient(cc))
	},
	"unimplemented_method": interop.DoUnimplementedMethod,
	"unimplemented_service": func(ctx context.Context, cc *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
	},
	"rpc_soak": func(ctx context.Context, cc *grpc.ClientConn) {
		soak(ctx, func() (*grpc.ClientConn, func()) { return cc, func() {} })
	},
	"channel_soak": func(ctx context.Context, _ *grpc.ClientConn) {
		soak(ctx, func() (*grpc.ClientConn, func()) {
			cc, err := dialInterop()
			if err != nil {
				panic(err) // it ends the process, as a failed case does
			}
			return cc, func() { cc.Close() }
		})
	},
}

// interopLimit is how long a case may take on a busy machine.
const interopLimit = 2 * time.Minute

// soak makes calls with the sizes that the cases are defined with.
func soak(ctx context.Context, channel func() (*grpc.ClientConn, func())) {
	interop.DoSoakTest(ctx, interop.SoakTestConfig{
		RequestSize: 271828, ResponseSize: 314159, NumWorkers: 4, Iterations: 200,
		PerIterationMaxAcceptableLatency: interopLimit, OverallTimeout: interopLimit,
		ServerAddr: os.Getenv(interopAddrEnv), ChannelForTest: channel,
	})
}

// namedServer says which server it is, for pick_first_unary.
type namedServer struct{ testgrpc.TestServiceServer }

func (s namedServer) UnaryCall(ctx context.Context, q *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	r, err := s.TestServiceServer.UnaryCall(ctx, q)
	if err == nil && q.GetFillServerId() {
		r.ServerId = "interop-1"
	}
	return r, err
}

func client(f func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn) {
	return func(ctx context.Context, cc *grpc.ClientConn) { f(ctx, testgrpc.NewTestServiceClient(cc)) }
}

const (
	interopCaseEnv = "OUTRIGGER_INTEROP_CASE"
	interopAddrEnv = "OUTRIGGER_INTEROP_ADDRESS"
)

// TestInteropCaseInAChild is one case in a process of its own, which a failed case
// ends.
func TestInteropCaseInAChild(t *testing.T) {
	name := os.Getenv(interopCaseEnv)
	if name == "" {
		return // the test below starts it
	}
	cc, err := dialInterop()
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), interopLimit)
	defer cancel()
	interopCases[name](ctx, cc)
}

func dialInterop() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+os.Getenv(interopAddrEnv), grpc.WithAuthority("interop"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// grpc-go's interoperability client and server with two sidecars between them:
// nothing is declared of the protocol.
func TestGRPCInteropThroughTwoSidecars(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, namedServer{interop.NewTestServer()})
	go server.Serve(listener)
	defer server.Stop()

	m := mesh.New(t)
	beside := mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{Service: "interop", ID: "interop-1", App: listener.Addr().String(), XDS: m.ControlPlane.XDS})
	beside.AwaitReady()
	m.AwaitInstance("interop", "interop-1", true)
	caller := m.Caller("caller")
	interopThrough(t, caller, "grpc", "two sidecars")
	for _, s := range []*mesh.Sidecar{caller, beside} {
		s.AwaitIdle()
	}
}

// interopThrough runs all cases through a sidecar.
func interopThrough(t *testing.T, caller *mesh.Sidecar, row, way string) {
	t.Helper()
	run := func(name string) ([]byte, error) {
		c := exec.Command(os.Args[0], "-test.run=^TestInteropCaseInAChild$", "-test.timeout=3m")
		c.Env = append(os.Environ(), interopCaseEnv+"="+name, interopAddrEnv+"="+caller.Outbound,
			"OUTRIGGER_BIN="+filepath.Dir(mesh.Program("sidecar")))
		return c.CombinedOutput()
	}
	caller.Await(20*time.Second, "the service is routed to", func() error {
		_, err := run("empty_unary")
		return err
	})
	passed := 0
	for name := range interopCases {
		if out, err := run(name); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		} else {
			passed++
		}
	}
	mesh.Conformance(t, row, "%d of %d of grpc-go's interoperability cases pass through %s", passed, len(interopCases), way)
}
