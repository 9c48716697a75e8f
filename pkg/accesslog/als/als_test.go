// SPDX-License-Identifier: Apache-2.0

package als

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a real access log service.
type service struct {
	alsv3.UnimplementedAccessLogServiceServer
	mu   sync.Mutex
	msgs []*alsv3.StreamAccessLogsMessage
}

func (s *service) StreamAccessLogs(st alsv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := st.Recv()
		if err != nil {
			return st.SendAndClose(&alsv3.StreamAccessLogsResponse{})
		}
		s.mu.Lock()
		s.msgs = append(s.msgs, m)
		s.mu.Unlock()
	}
}

func (s *service) entries() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.msgs {
		n += len(m.GetHttpLogs().GetLogEntry()) + len(m.GetTcpLogs().GetLogEntry())
	}
	return n
}

// serve starts the service on addr and returns its address and what stops it.
func serve(t *testing.T, s *service, addr string) (string, func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	alsv3.RegisterAccessLogServiceServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(l) }()
	return l.Addr().String(), func() { g.Stop(); <-done }
}

func newPool(t *testing.T, addr string) *Pool {
	t.Helper()
	p, err := NewPool(context.Background(), Config{NodeID: "n1", NodeCluster: "orders", ClusterAddress: func(cluster string) (string, error) {
		if cluster != "als" {
			return "", fmt.Errorf("no cluster %q", cluster)
		}
		return addr, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func closePool(t *testing.T, p *Pool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}

func exampleRecord() *record.Record {
	r := &record.Record{
		Start: 1767323045678901234, RequestEnd: 1e6, UpstreamRequest: 2e6, UpstreamResponse: record.Never, ResponseStart: 3e6, End: 4e6,
		Status: 503, Flags: record.UF | record.UAEX, Protocol: codec.HTTP11, Cluster: "c", Route: "r", Attempts: 2, Details: "d",
		Remote: netip.MustParseAddrPort("10.0.0.9:4000"), UpstreamAddr: netip.MustParseAddrPort("10.0.0.1:80"), BytesSent: 7,
	}
	for _, v := range []string{"POST", "/p\xff", "orders", "id", "curl", "one"} {
		r.Captures = record.AppendCapture(r.Captures, []byte(v))
	}
	return r
}

func TestEntriesArriveWithTheirFields(t *testing.T) {
	var s service
	addr, stop := serve(t, &s, "127.0.0.1:0")
	defer stop()
	p := newPool(t, addr)
	plan, err := accesslog.Compile([]*resource.AccessLog{
		{GRPC: &resource.GRPCLog{Cluster: "als", LogName: "http", ReqHeaders: []string{"x-a"}, RespHeaders: []string{"x-none"}}},
		{GRPC: &resource.GRPCLog{Cluster: "als", LogName: "tcp", TCP: true}},
	}, nil, accesslog.Options{Remote: p.Open})
	if err != nil {
		t.Fatal(err)
	}
	plan.Consume(exampleRecord())
	closePool(t, p)
	for _, m := range s.msgs {
		if m.Identifier.GetNode().GetId() != "n1" || m.Identifier.GetNode().GetCluster() != "orders" {
			t.Errorf("identifier: %v", m.Identifier)
		}
		if m.Identifier.LogName == "tcp" {
			if e := m.GetTcpLogs().LogEntry[0]; e.ConnectionProperties.SentBytes != 7 {
				t.Errorf("got %v", e)
			}
			continue
		}
		e := m.GetHttpLogs().LogEntry[0]
		c := e.CommonProperties
		if e.Request.Path != "/p\uFFFD" || e.Request.RequestMethod.String() != "POST" || e.Request.RequestHeaders["x-a"] != "one" || len(e.Response.ResponseHeaders) != 0 ||
			e.Response.ResponseCode.GetValue() != 503 || !c.ResponseFlags.UpstreamConnectionFailure || c.ResponseFlags.UnauthorizedDetails == nil ||
			c.TimeToFirstUpstreamRxByte != nil || c.Duration.AsDuration() != 4*time.Millisecond || c.UpstreamRemoteAddress.GetSocketAddress().GetPortValue() != 80 {
			t.Errorf("got %v", e)
		}
	}
	if s.entries() != 2 {
		t.Errorf("got %d entries", s.entries())
	}
}

func TestAServiceThatComesLateGetsWhatWaited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	p := newPool(t, addr)
	log, err := p.Open(&resource.GRPCLog{Cluster: "als", FlushMillis: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runtime.KeepAlive(log) }) // a log that nobody uses is given back, with its counts
	for range 100 {
		log.Log(exampleRecord(), accesslog.Values{})
	}
	deadline := time.Now().Add(10 * time.Second)
	for p.Stats()[0].Error == "" && time.Now().Before(deadline) {
		<-time.After(time.Millisecond)
	}
	var s service
	_, stop := serve(t, &s, addr)
	defer stop()
	closePool(t, p)
	if s.entries() != 100 {
		t.Errorf("got %d entries, want 100", s.entries())
	}
}

func TestADeadServiceDropsAndCounts(t *testing.T) {
	p := newPool(t, "127.0.0.1:1")
	log, err := p.Open(&resource.GRPCLog{Cluster: "als", ReqHeaders: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runtime.KeepAlive(log) }) // a log that nobody uses is given back, with its counts
	const n = 3000
	big := accesslog.Values{Request: [][]byte{make([]byte, 4000)}}
	for range n {
		log.Log(exampleRecord(), big)
	}
	if s := p.Stats()[0]; s.Accepted+s.Dropped != n || s.Dropped == 0 || s.Waiting > 1100 {
		t.Errorf("got %+v", s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); err == nil {
		t.Error("entries were left and nothing says so")
	}
}

// Each change of a log's settings makes another: the one before is given back with
// the last of its records.
func TestALogThatNoPlanUsesAnyMoreIsGivenBack(t *testing.T) {
	var s service
	addr, stop := serve(t, &s, "127.0.0.1:0")
	defer stop()
	p := newPool(t, addr)
	defer closePool(t, p)
	const times = 3 * maxLogs
	ring := record.NewRing(16, 1<<16)
	for i := range times {
		plan, err := accesslog.Compile([]*resource.AccessLog{{GRPC: &resource.GRPCLog{Cluster: "als", LogName: fmt.Sprint(i)}}}, nil, accesslog.Options{Remote: p.Open})
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		r := exampleRecord()
		r.Consumer = plan
		ring.Push(r)
		if i%8 == 0 {
			ring.Drain(16)
		}
	}
	ring.Drain(16)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		if len(p.Stats()) == 0 && s.entries() == times {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d entries arrived, %d logs are left", s.entries(), times, len(p.Stats()))
		}
	}
}
