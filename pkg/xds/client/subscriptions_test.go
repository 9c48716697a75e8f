// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	gcptest "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"

	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

// subscriptions waits until they satisfy the condition, in the order of kind and user.
func (c *consumer) subscriptions(t *testing.T, what string, ok func([]client.Subscription) bool) []client.Subscription {
	t.Helper()
	deadline := time.After(25 * time.Second)
	for {
		var list []client.Subscription
		c.client.Subscriptions(func(s *client.Subscription) bool {
			list = append(list, *s)
			return true
		})
		slices.SortFunc(list, func(a, b client.Subscription) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.User, b.User))
		})
		if ok(list) {
			return list
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("no %s after 25s: %+v", what, list)
		}
	}
}

func TestSubscriptionsAreCountedInEveryModeOfDelivery(t *testing.T) {
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := xdstest.Start(t, xdstest.Options{ADS: mode == "ads"})
			served, want := good(mode, "7"), []string{"cluster  ", "endpoints of orders ", "endpoints of payments ", "route configuration http main", "listener  "}
			if !strings.HasSuffix(mode, "ads") { // whose bootstrap has no layer by RTDS
				served[resourcev3.RuntimeType] = []types.Resource{gcptest.MakeRuntime("runtime-0")}
				want = append(want, "runtime layer  runtime-0")
			}
			s.Set(t, nodeID, snapshot(t, "7", served))
			c := start(t, bootstrapFor(t, mode, s), settings{})
			c.wait(t, "all of it", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil && s.Clusters["payments"] != nil })
			settled := func(list []client.Subscription) bool {
				return len(list) == len(want) && !slices.ContainsFunc(list, func(s client.Subscription) bool { return s.Accepted == 0 })
			}
			list := c.subscriptions(t, "all with a response", settled)
			var users []string
			for _, s := range list {
				users = append(users, fmt.Sprintf("%v %s %s", s.Kind, s.User, s.Name))
				asked := uint64(1)
				if mode == "rest" {
					asked = 0 // each poll is one
				}
				if s.Attempts != asked+s.Accepted || s.Rejected+s.Failures+s.Timeouts+s.Empty != 0 || s.Changed == 0 || s.Warming || s.Updated.IsZero() || s.Reloaded.IsZero() {
					t.Errorf("%+v", s)
				}
				if mode != "delta" && mode != "delta-ads" && s.Version != "7" {
					t.Errorf("%v has version %q, want 7", s.Kind, s.Version)
				}
			}
			slices.Sort(want)
			slices.Sort(users)
			if !slices.Equal(users, want) {
				t.Errorf("got %q, want %q", users, want)
			}
			n := 0
			c.client.Subscriptions(func(*client.Subscription) bool { n++; return n < 2 })
			if n != 2 {
				t.Errorf("told of %d after the second one was the last wanted", n)
			}
			// Each loss of the server counts, and each attempt to reach it again.
			s.Stop()
			list = c.subscriptions(t, "second failure of all", func(list []client.Subscription) bool {
				return !slices.ContainsFunc(list, func(s client.Subscription) bool { return s.Failures < 2 })
			})
			if !settled(list) {
				t.Errorf("%+v", list)
			}
		})
	}
}
