// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/grpcstats"
	"github.com/outrigger-mesh/outrigger/pkg/filter/grpcweb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func webRig(t *testing.T, backend string) *rig {
	reg := filter.NewRegistry(grpcweb.Spec(), grpcstats.Spec())
	return newRigWith(t, reg, func(s *resource.Snapshot) {
		withCluster(s, "c", backend).DownstreamProtocol = true
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{
			{Name: "web", TypeURL: grpcweb.TypeURL}, {Name: "stats", TypeURL: grpcstats.TypeURL, Config: &grpcstats.Config{All: true}},
		}
	})
}

// frames is a body of n messages.
func frames(n, size int) (b []byte) {
	for i := range n {
		b = append(grpc.AppendPrefix(b, 0, size), bytes.Repeat([]byte{byte('a' + i%26)}, size)...)
	}
	return b
}

func TestAClientOfGRPCWebCallsAServiceOfGRPC(t *testing.T) {
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.ProtoMajor != 2 || q.Header.Get("Content-Type") != "application/grpc+proto" || q.Header.Get("Te") != "trailers" {
			t.Errorf("the service sees %s %v", q.Proto, q.Header)
		}
		w.Header().Set("Content-Type", "application/grpc+proto")
		w.Header().Set("Trailer", "Grpc-Status, X-Sum")
		io.Copy(w, q.Body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("X-Sum", "7")
	})
	r := webRig(t, b)
	sent := frames(40, 30_000)
	for _, http2 := range []bool{false, true} {
		for _, text := range []bool{false, true} {
			t.Run(fmt.Sprintf("http2 %v, text %v", http2, text), func(t *testing.T) {
				kind, body := "application/grpc-web+proto", sent
				if text {
					kind, body = "application/grpc-web-text+proto", []byte(base64.StdEncoding.EncodeToString(sent))
				}
				q, _ := http.NewRequest("POST", "http://"+r.addr+"/s.S/M", bytes.NewReader(body))
				q.Header.Set("Content-Type", kind)
				resp, err := protocolClient(t, http2).Do(q)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				got, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != kind || len(resp.Trailer) > 0 {
					t.Fatalf("%d %v %v, %v", resp.StatusCode, resp.Header, resp.Trailer, err)
				}
				if text {
					got = decoded(t, got)
				}
				if !bytes.HasPrefix(got, sent) {
					t.Fatalf("%d bytes came back changed", len(got))
				}
				end := got[len(sent):]
				if len(end) < 5 || end[0] != grpc.FlagTrailer || string(end[5:]) != "grpc-status:0\r\nx-sum:7\r\n" {
					t.Errorf("ends with %q", end)
				}
			})
		}
	}
	s := statsOf(t, r)
	for name, want := range map[string]uint64{"success": 4, "total": 4, "0": 4, "request_message_count": 160, "response_message_count": 160} {
		if got := s["cluster.c.grpc.s.S.M."+name]; got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}

// decoded is base64 that may be padded anywhere.
func decoded(t *testing.T, b []byte) (out []byte) {
	t.Helper()
	for len(b) > 0 {
		n := len(b)
		if i := bytes.IndexByte(b, '='); i >= 0 {
			n = (i/4 + 1) * 4
		}
		part, err := base64.StdEncoding.DecodeString(string(b[:n]))
		if err != nil {
			t.Fatal(err)
		}
		out, b = append(out, part...), b[n:]
	}
	return out
}

func statsOf(t *testing.T, r *rig) map[string]uint64 {
	t.Helper()
	list, err := r.p.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]uint64{}
	for i := range list {
		all[list[i].FullName()] += list[i].Value
	}
	return all
}

func TestACallOfGRPCWebThatFailsHasItsStatusInTheHead(t *testing.T) {
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
		if _, err := io.Copy(io.Discard, q.Body); err == nil {
			answerOnly(w, "5")
		}
	})
	r := webRig(t, b)
	for body, want := range map[string]string{"AAAAAAA=": "5", "AAAA!AAA": "13", "AAAAA": "13"} {
		q, _ := http.NewRequest("POST", "http://"+r.addr+"/s/m", strings.NewReader(body))
		q.Header.Set("Content-Type", "application/grpc-web-text")
		resp, err := protocolClient(t, false).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		left, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if h := resp.Header; resp.StatusCode != 200 || h.Get("Grpc-Status") != want || h.Get("Content-Type") != "application/grpc-web-text" || len(left) > 0 {
			t.Errorf("%q: %d %v %q, want status %s", body, resp.StatusCode, h, left, want)
		}
	}
}

func TestAnAnswerOfGRPCWebEndsWithItsDeadlineInItsBody(t *testing.T) {
	b := protocolBackend(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Write(frames(1, 3))
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	})
	r := webRig(t, b)
	r.snap.Routes["r"].VirtualHosts[0].Routes[0].Action.GRPCTimeout.Kind = resource.GRPCTimeoutRoute
	routes := *r.snap.Routes["r"]
	r.snap.Routes["r"] = &routes
	r.apply(r.snap)
	q, _ := http.NewRequest("POST", "http://"+r.addr+"/s/m", bytes.NewReader(frames(1, 1)))
	q.Header.Set("Content-Type", "application/grpc-web")
	q.Header.Set("Grpc-Timeout", "1500m")
	resp, err := protocolClient(t, false).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	rest, ok := bytes.CutPrefix(body, frames(1, 3))
	if err != nil || !ok || len(rest) < 5 || rest[0] != grpc.FlagTrailer || !bytes.HasPrefix(rest[5:], []byte("grpc-status:4\r\n")) {
		t.Errorf("%q, %v", body, err)
	}
}
