// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// The bars of the protocols, with all features against others without them, and
// against Envoy with the same.
const (
	maxToHAProxy          = 0.75
	maxToHAProxyTLS       = 0.80
	maxHandshakeToHAProxy = 1.00
	maxProtocolToEnvoy    = 0.20
	maxIdleTLSBytes       = 12e3
)

// protocolBar is what a scenario is held against; 0: nothing.
type protocolBar struct{ haproxy, envoy float64 }

var protocolBars = map[string]protocolBar{
	"h2c-16x32":      {maxToHAProxy, maxProtocolToEnvoy},
	"h2c-64x1":       {maxToHAProxy, maxProtocolToEnvoy},
	"h2tls-16x32":    {maxToHAProxyTLS, maxProtocolToEnvoy},
	"h2tls-64x1":     {maxToHAProxyTLS, maxProtocolToEnvoy},
	"h1tls-64":       {maxToHAProxyTLS, maxProtocolToEnvoy},
	"grpc-unary":     {maxToHAProxy, maxProtocolToEnvoy},
	"grpc-stream":    {maxToHAProxy, maxProtocolToEnvoy},
	"mtls-h1":        {maxToHAProxyTLS, maxProtocolToEnvoy},
	"mtls-h2":        {maxToHAProxyTLS, maxProtocolToEnvoy},
	"handshake-full": {haproxy: maxHandshakeToHAProxy},
}

// judgeProtocols has a verdict for every bar whose both sides were measured.
func judgeProtocols(r *Result) (out []Verdict) {
	for i := range scenarios {
		name := scenarios[i].Name
		bar, ours := protocolBars[name], r.protocol("sidecar-on", name)
		for _, rival := range []struct {
			name, with string
			limit      float64
		}{{"haproxy", "HAProxy with none", bar.haproxy}, {"envoy-on", "Envoy with the same", bar.envoy}} {
			x := ours.ratioTo(r.protocol(rival.name, name))
			if x.N == 0 || rival.limit == 0 {
				continue
			}
			out = append(out, Verdict{
				Bar:      fmt.Sprintf("%s: CPU with all features at most %.2f × %s", name, rival.limit, rival.with),
				Measured: ratioText(x), Holds: x.Median <= rival.limit,
			})
		}
	}
	return append(out, judgeIdleTLS(r)...)
}

func judgeIdleTLS(r *Result) (out []Verdict) {
	row := idleRow(r.IdleTLS, "sidecar-on")
	if row == nil {
		return nil
	}
	ours := row.perConnection()
	out = append(out, Verdict{
		Bar:      fmt.Sprintf("sidecar: at most %s for an idle connection of TLS", quantity(maxIdleTLSBytes)),
		Measured: bytesText(ours), Holds: ours.Median <= maxIdleTLSBytes,
	})
	for _, rival := range []string{"haproxy", "envoy-on"} {
		other := idleRow(r.IdleTLS, rival)
		if other == nil {
			continue
		}
		theirs := other.perConnection()
		out = append(out, Verdict{
			Bar:      fmt.Sprintf("sidecar: less than %s for an idle connection of TLS", rival),
			Measured: bytesText(ours) + " and " + bytesText(theirs), Holds: ours.Median < theirs.Median,
		})
	}
	return out
}
