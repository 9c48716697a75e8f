// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// What is missing on our side says nothing about an endpoint.
func TestACertificateThatWeDoNotHaveYetIsNoFaultOfTheEndpoints(t *testing.T) {
	r := newSim(t, 4, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		c := withCluster(s, "c", "10.0.0.9:80")
		c.TLS = &resource.UpstreamTLS{CommonTLS: resource.CommonTLS{CertificateSecrets: []string{"not there yet"}, ValidationSecret: "nor this"}}
		c.Breaker = &resource.CircuitBreaker{
			Enabled: true, ErrorThresholdPercent: 1, RequestVolumeThreshold: 1, Window: time.Minute, Buckets: 10, SleepWindow: time.Minute,
			Count5xx: true, CountTimeout: true, CountConnectFailure: true, CountReset: true,
		}
		c.Outlier = &resource.OutlierDetection{
			Consecutive5xx: 1, Enforcing5xx: 100, Interval: 100 * time.Millisecond, BaseEjection: time.Minute, MaxEjection: time.Hour, MaxEjectionPercent: 100,
		}
	})
	host := r.p.slots["c"].spec.Load().lb.View().Hosts()[0]
	c := r.dial()
	for i := range 5 {
		c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		r.until("the answer", time.Minute, func() bool { return strings.Count(string(c.Received), "HTTP/1.1 503") > i })
		r.pass(time.Second) // ticks, too
	}
	if n := strings.Count(string(c.Received), mtls.Failure{Reason: mtls.NoContext}.Text()); n != 5 {
		t.Errorf("%d of 5 answers say what is missing: %q", n, c.Received)
	}
	on := r.p.workers[0].clusters[r.p.slots["c"]]
	if on.stats.shortCircuited != 0 || host.Ejected() || host.Consecutive().Load() != 0 {
		t.Errorf("%d short-circuited, ejected %v, failures %#x; want none", on.stats.shortCircuited, host.Ejected(), host.Consecutive().Load())
	}
}

func TestOnlyFailuresOfTheEndpointCountAgainstIt(t *testing.T) {
	for r := range mtls.Reason(mtls.ReasonCount) {
		want := classConnect
		if r == mtls.NoContext || r == mtls.TooMany {
			want = classShort
		}
		f := mtls.Failure{Reason: r}
		if got := connectFailure(f, false).Class; got != want || short(f) != (want == classShort) {
			t.Errorf("%s: class %d, short %v; want class %d", f.Text(), got, short(f), want)
		}
	}
}
