// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

const hedgesOfPayments = "outrigger.cluster.outbound|payments.hedges_total"

// One of two instances hangs: what a policy hedges is answered by the other one, and what
// is not idempotent waits for its timeout.
func TestAPolicyHedgesWhatIsIdempotent(t *testing.T) {
	m := mesh.New(t)
	caller := m.Caller("caller")
	hangs := m.Instance("payments", "p1")
	m.Instance("payments", "p2")
	m.AwaitAnswers(caller, "payments", "p1", "p2")
	r := m.ControlPlane.CLI(admissionPolicy(`hedging: {perTryTimeout: 50ms}, timeouts: {request: 2s},
  loadBalancer: {policy: random}, outlierDetection: {consecutive5xx: 0}, circuitBreaker: {enabled: false}, limits: {retryBudget: 100%}`), "apply", "-f", "-")
	if r.Code != 0 {
		t.Fatalf("apply: %+v", r)
	}
	explained := m.ControlPlane.CLI("", "explain", "GET", "http://payments/", "--from", "web").Output
	if !strings.Contains(explained, "another attempt beside the one under way after 50ms") {
		t.Errorf("explained as %s", explained)
	}
	if text := m.ControlPlane.CLI("", "explain", "POST", "http://payments/", "--from", "web").Output; strings.Contains(text, "taken: path prefix /, :method") || strings.Contains(text, "another attempt") {
		t.Errorf("a POST is explained as %s", text)
	}
	hangs.App.Signal(syscall.SIGSTOP)
	t.Cleanup(func() { hangs.App.Signal(syscall.SIGCONT) })
	caller.Await(admissionLimit, "a hedged request", func() error {
		if _, err := mesh.Call(caller.Outbound, "payments", "/"); err != nil {
			return err
		}
		stats, err := caller.Stats()
		if n := stats[hedgesOfPayments]; err == nil && n == 0 {
			err = fmt.Errorf("%s is %d", hedgesOfPayments, n)
		}
		return err
	})
	for range 20 {
		if a, err := mesh.Call(caller.Outbound, "payments", "/"); err != nil || a.Status != 200 {
			t.Errorf("a GET: %v %v", a, err)
		}
	}
	before := caller.AwaitStat(hedgesOfPayments, func(int) bool { return true })
	caller.Await(admissionLimit, "a POST that waits for the instance that hangs", func() error {
		if status := mesh.Post(caller.Outbound, "payments", "/", "x"); status != 504 {
			return fmt.Errorf("it is answered %d", status)
		}
		return nil
	})
	if after := caller.AwaitStat(hedgesOfPayments, func(int) bool { return true }); after != before {
		t.Errorf("%d hedged requests are %d after some POSTs", before, after)
	}
}
