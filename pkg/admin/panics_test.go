// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// panicky is a filter that fails with each request for /panic.
type panicky struct{}

func (panicky) OnRequest(x *filter.Exchange) filter.Verdict {
	if string(x.Request.Path()) == "/panic" {
		panic("asked to")
	}
	return filter.Next
}

// D13: nine panics are nine bugs met; the tenth within a minute is a state that
// traffic should be kept from.
func TestTheTenthPanicWithinAMinuteFailsReadiness(t *testing.T) {
	registry := filter.NewRegistry(filter.Spec{
		Name: "panicky", TypeURL: "panicky",
		Parse: func([]byte) (any, error) { return nil, nil },
		New:   func(any, filter.Worker) filter.Filter { return panicky{} },
	})
	r := runWith(t, registry, func(s *resource.Snapshot) {
		s.Listeners["l"].FilterChains[0].HTTP.Filters = []resource.HTTPFilter{{Name: "panicky", TypeURL: "panicky"}}
	})
	const limit = 10
	for n := 1; n <= limit; n++ {
		if resp, err := http.Get("http://" + r.addr + "/panic"); err == nil {
			resp.Body.Close()
			t.Fatalf("panic %d was answered with %d", n, resp.StatusCode)
		}
		counted := fmt.Sprintf("\noutrigger_panics_total %d\n", n)
		until(t, counted, func() bool {
			_, body := r.get(r.adminAddr, "/stats/prometheus")
			return strings.Contains(body, counted)
		})
		if n == limit {
			break
		}
		if status, body := r.get(r.adminAddr, "/ready"); status != 200 {
			t.Fatalf("after %d panics: %d %q", n, status, body)
		}
	}
	until(t, "readiness fails", func() bool {
		status, _ := r.get(r.adminAddr, "/ready")
		return status == 503
	})
	if status, body := r.get(r.addr, "/"); status != 200 || body != "ok" {
		t.Errorf("requests that reach it all the same: %d %q", status, body)
	}
	t.Logf("%d panics: 0 answered, %d counted, ready until the 9th, not after the 10th", limit, limit)
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
