// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// Where only the first request of a stream says whose it is, one that takes its place
// before it is sent says so, too: the server would wait for a node that it never hears of.
func TestARequestThatTakesThePlaceOfTheFirstHasItsNode(t *testing.T) {
	var o outbox
	o.init()
	world := func(node *corev3.Node, names ...string) []Request {
		return []Request{{Kind: decode.Route, World: &discoveryv3.DiscoveryRequest{Node: node, ResourceNames: names}}}
	}
	o.post(world(&corev3.Node{Id: "a"}, "one"))
	o.post(world(nil, "one", "two"))
	o.post(world(nil, "one", "two", "three"))
	r, _ := o.take(time.Now())
	if r == nil || r.World.GetNode().GetId() != "a" || len(r.World.GetResourceNames()) != 3 {
		t.Errorf("got %+v", r)
	}
	o.post(world(nil, "one"))
	if r, _ := o.take(time.Now()); r == nil || r.World.GetNode() != nil {
		t.Errorf("behind it: got %+v", r)
	}
}
