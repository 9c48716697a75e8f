// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"strings"
	"testing"
)

const examples = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: payments}
spec:
  parentRefs: [{group: outrigger.io, kind: Service, name: payments}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /v2}, headers: [{name: x-beta, value: "1"}]}]
    backendRefs: [{group: outrigger.io, kind: Service, name: payments-v2, port: 8080}]
  - backendRefs: [{group: outrigger.io, kind: Service, name: payments, weight: 95}, {group: outrigger.io, kind: Service, name: payments-v2, weight: 5}]
    timeouts: {request: 3s, backendRequest: 1s}
    retry: {attempts: 2, codes: [503], backoff: 25ms}
---
apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: payments}
spec:
  targetRef: {kind: Service, name: payments}
  loadBalancer: {policy: least_request}
  limits: {connections: 1024, pendingRequests: 1024, requests: 1024, retryBudget: 20%}
  circuitBreaker: {errorThresholdPercent: 50, requestVolumeThreshold: 20, window: 10s, sleepWindow: 5s, countAsError: [5xx, timeout, connect-failure]}
  outlierDetection: {consecutive5xx: 5, baseEjectionTime: 30s, maxEjectionPercent: 10}
  fallback: {status: 200, body: '{"payments": []}', contentType: application/json}
---
apiVersion: outrigger.io/v1
kind: Telemetry
metadata: {name: mesh}                      # without targetRef: the whole mesh
spec:
  tracing: {sampling: 1%, propagation: [tracecontext, b3], exporters: [{zipkin: {url: http://zipkin:9411/api/v2/spans}}, {otlp: {endpoint: otel:4317}}]}
  accessLog: [{file: /dev/stdout, format: json, filter: {or: [{status: '>= 400'}, {duration: '> 500ms'}]}}]
---
apiVersion: outrigger.io/v1
kind: Tap
metadata: {name: orders-errors}
spec:
  targetRef: {kind: Service, name: orders}
  match: {status: 5xx, sample: 100%, maxPerSecond: 200}
  capture: {requestBody: 64KiB, responseBody: 64KiB}
  expires: 2h
  redact: {headers: [x-internal-token], jsonPaths: [$.card.number], patterns: [payment-card]}
---
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: legacy}
spec: {ports: [{port: 80}], endpoints: [{address: 127.0.0.1, port: 8081}]}
`

func TestTheDocumentedExamplesParse(t *testing.T) {
	objects, err := Parse("examples.yaml", []byte(examples))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o.Key().String())
	}
	want := "HTTPRoute/payments TrafficPolicy/payments Telemetry/mesh Tap/orders-errors Service/legacy"
	if strings.Join(got, " ") != want {
		t.Errorf("objects: got %v, want %s", got, want)
	}
	route := objects[0].(*HTTPRoute)
	if w := route.Spec.Rules[1].BackendRefs[0].Share(); w != 95 {
		t.Errorf("weight: got %d, want 95", w)
	}
	if tap := objects[3].(*Tap); tap.Spec.Capture.RequestBody != 64<<10 {
		t.Errorf("size: got %d, want 65536", tap.Spec.Capture.RequestBody)
	}
}
