// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// admissionLimit bounds the wait for a policy to be in force.
const admissionLimit = 30 * time.Second

func admissionPolicy(spec string) string {
	return "apiVersion: outrigger.io/v1\nkind: TrafficPolicy\nmetadata: {name: payments}\nspec: {targetRef: {kind: Service, name: payments}, " + spec + "}\n"
}

// A policy's rate limit holds at the instances' sidecars, its faults at the callers'.
func TestRateLimitsAndFaultsOfAPolicyAreInForce(t *testing.T) {
	m := mesh.New(t)
	caller := m.Caller("caller")
	payments := m.Instance("payments", "p1")
	m.AwaitAnswers(caller, "payments", "p1")
	apply := func(spec string) {
		t.Helper()
		if r := m.ControlPlane.CLI(admissionPolicy(spec), "apply", "-f", "-"); r.Code != 0 {
			t.Fatalf("apply %s: %+v", spec, r)
		}
	}
	await := func(status int) mesh.Answer {
		t.Helper()
		var a mesh.Answer
		caller.Await(admissionLimit, fmt.Sprintf("an answer of %d", status), func() (err error) {
			if a, err = mesh.Call(caller.Outbound, "payments", "/"); err == nil && a.Status != status {
				err = fmt.Errorf("it is %d", a.Status)
			}
			return err
		})
		return a
	}

	apply("rateLimit: {requests: 3, per: 24h}")
	a := await(429)
	if a.Header.Get("Retry-After") == "" || a.Header.Get("X-RateLimit-Limit") != "3" || a.Header.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("the refusal has the fields %v", a.Header)
	}
	stats, err := payments.Sidecar.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if ok, refused := stats["inbound.http_local_rate_limit.ok"], stats["inbound.http_local_rate_limit.enforced"]; ok != 3 || refused == 0 {
		t.Errorf("%d requests passed and %d were refused of a bucket of 3", ok, refused)
	}

	apply("fault: {abort: {status: 418}}")
	await(418)
	caller.AwaitStat("http.outbound.fault.aborts_injected", func(n int) bool { return n > 0 })

	apply("fault: {delay: {fixed: 1s, percent: 100%}}")
	await(200)
	caller.AwaitStat("http.outbound.fault.delays_injected", func(n int) bool { return n > 0 })

	apply("limits: {requests: 1000}")
	caller.Await(admissionLimit, "a request without a fault", func() error {
		before := caller.AwaitStat("http.outbound.fault.delays_injected", func(int) bool { return true })
		if _, err := mesh.Call(caller.Outbound, "payments", "/"); err != nil {
			return err
		}
		if after := caller.AwaitStat("http.outbound.fault.delays_injected", func(int) bool { return true }); after != before {
			return fmt.Errorf("%d delays are %d", before, after)
		}
		return nil
	})
}
