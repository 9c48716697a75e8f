// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	gcptest "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// wire are the delta responses that bring n clusters of 10 endpoints, as bytes.
func wire(t testing.TB, n int) (cds, eds []byte) {
	t.Helper()
	c := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: decode.TypeOf(decode.Cluster).URL, Nonce: "c"}
	e := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: decode.TypeOf(decode.Endpoints).URL, Nonce: "e"}
	add := func(r *discoveryv3.DeltaDiscoveryResponse, name string, m proto.Message) {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		r.Resources = append(r.Resources, &discoveryv3.Resource{Name: name, Version: "0123456789abcdef", Resource: a})
	}
	for i := range n {
		name := fmt.Sprintf("service-%d", i)
		add(c, name, gcptest.MakeCluster("ads", name))
		add(e, name, tenEndpoints(name, i))
	}
	return marshal(t, c), marshal(t, e)
}

func tenEndpoints(name string, c int) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		Locality: &corev3.Locality{Region: "eu", Zone: "eu-1"},
	}}}
	for i := range 10 {
		e := gcptest.MakeEndpoint(name, 8080).GetEndpoints()[0].GetLbEndpoints()[0]
		e.GetEndpoint().GetAddress().GetSocketAddress().Address = fmt.Sprintf("10.%d.%d.%d", c/250, c%250, i)
		out.Endpoints[0].LbEndpoints = append(out.Endpoints[0].LbEndpoints, e)
	}
	return out
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bare is a client whose only source is fed by the test.
func bare(t testing.TB) (*Client, *source) {
	t.Helper()
	src := decode.Source{Kind: decode.SourceADS, InitialFetchTimeout: 15 * time.Second}
	ads := decode.Source{Kind: decode.SourceDelta, Service: decode.Service{Cluster: "xds"}}
	c, err := New(Config{
		Bootstrap: &decode.BootstrapConfig{Node: decode.Node{ID: "n"}, ADS: &ads, CDS: &src},
		Registry:  filter.NewRegistry(), Publish: func(*resource.Snapshot) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &source{key: "ads", src: ads, cancel: func() {}}
	s.out.init()
	s.stream = NewStream(StreamConfig{Delta: true, Node: c.node, Decode: c.dec.Decode, Name: c.dec.Name, Known: func(k decode.Kind, name string) []byte {
		if e := c.store.latest[k][name]; e != nil {
			return e.bytes
		}
		return nil
	}})
	c.sources["ads"] = s
	c.rewant = true
	return c, s
}

// feed does what Run does with a message.
func (c *Client) feed(t testing.TB, s *source, raw []byte) {
	t.Helper()
	r := new(discoveryv3.DeltaDiscoveryResponse)
	if err := proto.Unmarshal(raw, r); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscribe(context.Background())
	c.handle(message{from: s, ev: DeltaResponse{r}})
	c.subscribe(context.Background())
	c.advance(time.Now())
	c.subscribe(context.Background())
	s.out.reset()
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// heap is what is in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

const bigMesh = 1000

func TestAThousandClustersCostLittleTimeAndMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector multiplies both")
	}
	cds, eds := wire(t, bigMesh)
	warm, ws := bare(t) // tables that are made once
	a, b := wire(t, 1)
	warm.feed(t, ws, a)
	warm.feed(t, ws, b)

	before := heap()
	c, s := bare(t)
	began := cpuTime()
	c.feed(t, s, cds)
	c.feed(t, s, eds)
	spent := cpuTime() - began
	if c.snapshot == nil || len(c.snapshot.Clusters) != bigMesh || len(c.snapshot.Assignments["service-7"].Localities[0].Endpoints) != 10 {
		t.Fatal("no snapshot, or an incomplete one")
	}
	per := (heap() - before) / bigMesh
	t.Logf("%d clusters of 10 endpoints: %s of CPU, %d bytes retained for each (of which %d as received)", bigMesh, spent, per, (len(cds)+len(eds))/bigMesh)
	if spent > 250*time.Millisecond {
		t.Errorf("took %s of CPU, want at most 250ms", spent)
	}
	if per > 4096 {
		t.Errorf("a cluster retains %d bytes, want at most 4096", per)
	}
	runtime.KeepAlive(c)
}

// BenchmarkOneChangeAmongManyClusters is one response that changes one cluster, or its
// endpoints, of n.
func BenchmarkOneChangeAmongManyClusters(b *testing.B) {
	for _, n := range []int{bigMesh, 10 * bigMesh, 100 * bigMesh} {
		c, s := bare(b)
		cds, eds := wire(b, n)
		c.feed(b, s, cds)
		c.feed(b, s, eds)
		changed := func(kind decode.Kind, i int, m proto.Message) []byte {
			a, err := anypb.New(m)
			if err != nil {
				b.Fatal(err)
			}
			return marshal(b, &discoveryv3.DeltaDiscoveryResponse{TypeUrl: decode.TypeOf(kind).URL, Nonce: "x", Resources: []*discoveryv3.Resource{
				{Name: "service-7", Version: fmt.Sprint(i), Resource: a},
			}})
		}
		var clusters, endpoints [2][]byte
		for i := range 2 {
			m := gcptest.MakeCluster("ads", "service-7")
			m.PerConnectionBufferLimitBytes = wrapperspb.UInt32(uint32(1000 + i))
			clusters[i] = changed(decode.Cluster, i, m)
			endpoints[i] = changed(decode.Endpoints, i, tenEndpoints("service-7", 500+i))
		}
		for what, change := range map[string][2][]byte{"cluster": clusters, "endpoints": endpoints} {
			b.Run(fmt.Sprintf("%s/%d", what, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					c.feed(b, s, change[i%2])
				}
			})
		}
	}
}
