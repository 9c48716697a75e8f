// SPDX-License-Identifier: Apache-2.0

package grpcstats

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/codec/grpc"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// all is the configuration that counts every method.
var all = protowire.AppendBytes(protowire.AppendTag(nil, fieldAll, protowire.BytesType),
	protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1))

type rig struct {
	t    testing.TB
	spec filter.Spec
	f    *statsFilter
	x    *filter.Exchange
}

func newRig(t testing.TB, config []byte) *rig {
	t.Helper()
	spec := Spec()
	c, err := spec.Parse(config)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, spec: spec, f: spec.New(c, filter.Worker{}).(*statsFilter), x: &filter.Exchange{Slots: make([]any, 1)}}
}

// request begins a call; respond is the head of an endpoint's answer.
func (r *rig) request(path string) {
	x := r.x
	x.Record.Cluster, x.Record.UpstreamStatus = "orders", 0
	x.Request.Reset()
	x.Request.SetPath([]byte(path))
	x.Request.AddString("content-type", "application/grpc")
	r.f.OnRequest(x)
}

func (r *rig) respond(status string) {
	r.x.Record.UpstreamStatus = 200
	r.reply(status)
}

func (r *rig) reply(status string) {
	h := &r.x.Response
	h.Reset()
	h.AddString("content-type", "application/grpc")
	if status != "" {
		h.AddString("grpc-status", status)
	}
	r.f.OnResponse(r.x)
}

func (r *rig) trailer(status string) {
	var h codec.Header
	h.AddString("grpc-status", status)
	r.f.OnResponseTrailer(r.x, &h)
}

// counted lists what is not zero.
func (r *rig) counted() string {
	var list []string
	for _, c := range r.spec.Counts(0, nil) {
		if c.Value > 0 {
			name := c.Cluster + "." + c.Family
			for _, t := range c.Tags {
				name += "." + t.Value
			}
			list = append(list, fmt.Sprintf("%s.%s=%d", name, c.Name, c.Value))
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func (r *rig) want(want string) {
	r.t.Helper()
	if got := r.counted(); got != want {
		r.t.Errorf("counted\n%s\nwant\n%s", got, want)
	}
}

func message(n int) []byte { return append(grpc.AppendPrefix(nil, 0, n), make([]byte, n)...) }

func TestAStreamsMessagesAndItsStatusAreCounted(t *testing.T) {
	r := newRig(t, all)
	r.request("/shop.Orders/Watch")
	r.f.OnRequestData(r.x, message(3)[:4], false)
	r.f.OnRequestData(r.x, message(3)[4:], false)
	r.respond("")
	r.f.OnRequestData(r.x, message(0), true)
	r.f.OnResponseData(r.x, append(message(5), message(6)...), false)
	r.want("orders.grpc.shop.Orders.Watch.request_message_count=2 orders.grpc.shop.Orders.Watch.response_message_count=2")
	r.trailer("5")
	r.f.OnDone(r.x)
	r.want("orders.grpc.shop.Orders.Watch.5=1 orders.grpc.shop.Orders.Watch.failure=1 orders.grpc.shop.Orders.Watch.request_message_count=2 " +
		"orders.grpc.shop.Orders.Watch.response_message_count=2 orders.grpc.shop.Orders.Watch.total=1")
}

func TestOnlyMethodsThatExistGetANameOfTheirOwn(t *testing.T) {
	r := newRig(t, all)
	r.request("/x/guess")
	r.f.OnRequestData(r.x, message(1), true)
	r.respond("12")
	r.f.OnDone(r.x)
	r.request("/x/guessed again") // as most servers of HTTP/2 answer
	r.respond("")
	r.trailer("12")
	r.f.OnDone(r.x)
	r.request("/x/reset")
	r.respond("")
	r.f.OnDone(r.x)
	r.request("/x/unanswered")
	r.reply("14") // the proxy's own
	r.f.OnDone(r.x)
	r.request("/x/cut")
	r.f.OnDone(r.x)
	r.request("no path of a call")
	r.respond("0")
	r.f.OnDone(r.x)
	r.want("orders.grpc.12=2 orders.grpc.14=1 orders.grpc.failure=3 orders.grpc.request_message_count=1 orders.grpc.total=3")
}

// A call that ends with its trailers is counted under its name from its beginning.
func TestACallIsNamedByItsTrailers(t *testing.T) {
	r := newRig(t, all)
	r.request("/shop.Orders/Put")
	r.f.OnRequestData(r.x, message(3), true)
	r.respond("")
	r.want("")
	r.trailer("0")
	r.f.OnDone(r.x)
	r.want("orders.grpc.shop.Orders.Put.0=1 orders.grpc.shop.Orders.Put.request_message_count=1 orders.grpc.shop.Orders.Put.success=1 orders.grpc.shop.Orders.Put.total=1")
}

func TestNamesAreBounded(t *testing.T) {
	r := newRig(t, all)
	for i := range maxMethods + 50 {
		r.request(fmt.Sprintf("/s/m%d", i))
		r.respond("0")
		r.f.OnDone(r.x)
	}
	r.request("/s/" + strings.Repeat("m", maxKey))
	r.respond("0")
	r.f.OnDone(r.x)
	if n := len(r.f.table.methods); n != maxMethods {
		t.Errorf("%d methods", n)
	}
	c := r.f.table.clusters["orders"]
	if c.success != 51 || c.overflow != 50 {
		t.Errorf("%d calls are counted without a name, %d of them for want of a place", c.success, c.overflow)
	}
}

func TestListedMethodsOnlyAreCountedByName(t *testing.T) {
	text := func(num protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), s)
	}
	service := append(text(fieldName, "shop.Orders"), text(fieldMethods, "Get")...)
	list := protowire.AppendBytes(protowire.AppendTag(nil, fieldServices, protowire.BytesType), service)
	config := protowire.AppendBytes(protowire.AppendTag(nil, fieldList, protowire.BytesType), list)
	config = protowire.AppendVarint(protowire.AppendTag(config, fieldReplaceDots, protowire.VarintType), 1)
	r := newRig(t, config)
	for _, path := range []string{"/shop.Orders/Get", "/shop.Orders/List"} {
		r.request(path)
		r.respond("0")
		r.f.OnDone(r.x)
	}
	r.want("orders.grpc.0=1 orders.grpc.shop_Orders.Get.0=1 orders.grpc.shop_Orders.Get.success=1 orders.grpc.shop_Orders.Get.total=1 " +
		"orders.grpc.success=1 orders.grpc.total=1")
}

func TestCountersOutliveTheFilter(t *testing.T) {
	r := newRig(t, all)
	for range 2 {
		r.request("/s/m")
		r.respond("0")
		r.f.OnDone(r.x)
		c, _ := r.spec.Parse(all)
		r.f = r.spec.New(c, filter.Worker{}).(*statsFilter)
	}
	r.want("orders.grpc.s.m.0=2 orders.grpc.s.m.success=2 orders.grpc.s.m.total=2")
}

func TestSettingsThatAreNotInAreRefusedByName(t *testing.T) {
	for num, want := range map[protowire.Number]string{
		fieldEmitState: "emit_filter_state: not supported", fieldUpstream: "enable_upstream_stats: not supported", 9: "field 9: not supported",
	} {
		_, err := parse(protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), 1))
		if err == nil || err.Error() != want {
			t.Errorf("field %d: %v, want %s", num, err, want)
		}
	}
}

func TestACallAllocatesNothing(t *testing.T) {
	r := newRig(t, all)
	m := message(100)
	var h codec.Header
	h.AddString("grpc-status", "0")
	run := func() {
		r.request("/shop.Orders/Get")
		r.f.OnRequestData(r.x, m, true)
		r.respond("")
		r.f.OnResponseData(r.x, m, false)
		r.f.OnResponseTrailer(r.x, &h)
		r.f.OnDone(r.x)
	}
	run()
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parse(b)
		if err == nil {
			c.(*Config).named([]byte("s"), []byte("m"))
		}
	})
}
