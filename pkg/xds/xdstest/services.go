// SPDX-License-Identifier: Apache-2.0

package xdstest

import (
	"errors"
	"io"
	"net/http"
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	deltav3 "github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	restv3 "github.com/envoyproxy/go-control-plane/pkg/server/rest/v3"
	sotwv3 "github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

type (
	worldStream = grpc.GenericServerStream[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]
	deltaStream = grpc.GenericServerStream[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
)

// register adds the aggregated service and that of each type.
func register(g *grpc.Server, world sotwv3.Server, delta deltav3.Server) {
	add := func(service, stream, deltas, typeURL string) {
		d := &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
		if stream != "" {
			d.Streams = append(d.Streams, grpc.StreamDesc{
				StreamName: stream, ServerStreams: true, ClientStreams: true,
				Handler: func(_ any, s grpc.ServerStream) error {
					return world.StreamHandler(&worldStream{ServerStream: s}, typeURL)
				},
			})
		}
		d.Streams = append(d.Streams, grpc.StreamDesc{
			StreamName: deltas, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error {
				return delta.DeltaStreamHandler(&deltaStream{ServerStream: s}, typeURL)
			},
		})
		g.RegisterService(d, struct{}{})
	}
	add("envoy.service.discovery.v3.AggregatedDiscoveryService", "StreamAggregatedResources", "DeltaAggregatedResources", "")
	for _, t := range decode.Types() {
		add(t.Service, t.Stream, t.Delta, t.URL)
	}
}

// gateway serves REST-JSON.
type gateway struct{ to restv3.Server }

func (g gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := &discoveryv3.DiscoveryRequest{}
	for _, t := range decode.Types() {
		if t.REST != "" && strings.HasSuffix(r.URL.Path, "/v3/discovery:"+t.REST) {
			req.TypeUrl = t.URL
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	url := req.GetTypeUrl()
	if err == nil {
		err = protojson.Unmarshal(body, req)
	}
	if err != nil || url == "" || r.Method != http.MethodPost {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	req.TypeUrl = url
	resp, err := g.to.Fetch(r.Context(), req)
	var same *types.SkipFetchError
	if errors.As(err, &same) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	var out []byte
	if err == nil {
		out, err = protojson.MarshalOptions{UseProtoNames: true}.Marshal(resp)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(out)
}
