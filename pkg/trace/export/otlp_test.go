// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// receiver is an OTLP receiver of its own protocol.
type receiver struct {
	collectorpb.UnimplementedTraceServiceServer
	mu   sync.Mutex
	reqs []*collectorpb.ExportTraceServiceRequest
}

func (r *receiver) Export(_ context.Context, q *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reqs = append(r.reqs, q)
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// check looks at the one span of exampleSpan, and counts all.
func (r *receiver) check(t *testing.T, want int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, q := range r.reqs {
		for _, rs := range q.ResourceSpans {
			if a := rs.Resource.Attributes[0]; a.Key != "service.name" || a.Value.GetStringValue() != "web" {
				t.Errorf("resource: %v", rs.Resource)
			}
			for _, ss := range rs.ScopeSpans {
				n += len(ss.Spans)
			}
		}
	}
	if n != want {
		t.Fatalf("got %d spans, want %d", n, want)
	}
	s := r.reqs[0].ResourceSpans[0].ScopeSpans[0].Spans[0]
	if s.Name != "GET orders" || s.Kind.String() != "SPAN_KIND_CLIENT" || s.Status.Code.String() != "STATUS_CODE_ERROR" ||
		s.EndTimeUnixNano-s.StartTimeUnixNano != 1234567 || !bytes.Equal(s.ParentSpanId, []byte{0, 0, 0, 0, 0, 0, 0, 3}) {
		t.Errorf("got %v", s)
	}
	attrs := map[string]string{}
	for _, a := range s.Attributes {
		attrs[a.Key] = strings.TrimSpace(a.Value.String())
	}
	if !strings.Contains(attrs["http.status_code"], "int_value:503") || attrs["peer.service"] == "" || !strings.Contains(attrs["x"], "\uFFFD") {
		t.Errorf("attributes: %v", attrs)
	}
}

func TestOTLPOverGRPCReachesARealReceiver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, s := &receiver{}, grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(s, r)
	go s.Serve(l)
	defer s.Stop()
	p := NewPool(Config{Node: "web~1"})
	x := open(t, p, resource.TraceExporter{OTLPEndpoint: l.Addr().String()})
	for range 700 {
		x.Export(exampleSpan())
	}
	closePool(t, p)
	r.check(t, 700)
}

func TestOTLPOverHTTPReachesAReceiver(t *testing.T) {
	r := &receiver{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(req.Body)
		}
		b, err := io.ReadAll(body)
		q := &collectorpb.ExportTraceServiceRequest{}
		if err == nil {
			err = proto.Unmarshal(b, q)
		}
		if err != nil || req.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", req.URL.Path, err)
		}
		r.Export(req.Context(), q)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer s.Close()
	p := NewPool(Config{})
	open(t, p, resource.TraceExporter{OTLPEndpoint: s.Listener.Addr().String(), OTLPProtocol: "http"}).Export(exampleSpan())
	closePool(t, p)
	r.check(t, 1)
}
