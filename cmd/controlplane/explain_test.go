// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

const explainedRoutes = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: payments}
spec:
  parentRefs: [{group: outrigger.io, kind: Service, name: payments}]
  rules:
  - matches: [{path: {value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: other, statusCode: 302}}]
  - matches: [{path: {value: /none}}]
    backendRefs: [{group: outrigger.io, kind: Service, name: payments, weight: 0}]
  - matches: [{path: {value: /v1}}]
    backendRefs: [{group: outrigger.io, kind: Service, name: payments}]
---
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: lonely}
spec: {ports: [{port: 80}]}
`

func TestExplainEndsByWhatBecomesOfTheRequest(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	d.put("/v1/services/payments/instances/a", `{"address": "127.0.0.1", "port": 9001}`)
	d.put("/v1/services/safe/instances/a", `{"address": "127.0.0.1", "port": 9002, "mutualTLS": true}`)
	d.want(d.run(explainedRoutes, "apply", "-f", "-"), 0)
	for _, tt := range []struct {
		name         string
		args         []string
		code         int
		outcome, say string
	}{
		{"an instance gets it", []string{"GET", "http://payments/v1"}, exitDone, "payments, the only instance\n", "routed"},
		{"a route answers", []string{"GET", "http://payments/moved"}, exitDone, "redirect: ", "answered"},
		{"no backend takes it", []string{"GET", "http://payments/none"}, exitFailed, "500 from the sidecar itself", "unavailable"},
		{"no host", []string{"GET", "http://nobody/"}, exitNotFound, "404 NR: no service", "notFound"},
		{"no port", []string{"CONNECT", "tcp://payments:5432"}, exitNotFound, "nowhere: no service", "notFound"},
		{"no instance", []string{"GET", "http://lonely/"}, exitFailed, "503 UH: lonely has no instance\n", "unavailable"},
		{"mutual TLS only", []string{"GET", "http://safe/"}, exitFailed, "refused: safe takes mutual TLS only", "refused"},
		{"mutual TLS only, hint", []string{"GET", "http://safe/"}, exitFailed, "\nhint: send it by a sidecar of the mesh", "refused"},
		{"no such sender", []string{"GET", "http://payments/v1", "--from", "payments/b"}, exitNotFound, "want a service, SERVICE/INSTANCE", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"explain"}, tt.args...)
			r := d.want(d.run("", args...), tt.code, tt.outcome)
			if tt.say == "" {
				return
			}
			if r.err != "" {
				t.Errorf("the outcome says it all, and there is %q", r.err)
			}
			d.want(d.run("", append(args, "-o", "json")...), tt.code, `"result": "`+tt.say+`"`)
		})
	}
}
