// SPDX-License-Identifier: Apache-2.0

package controlplane_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

const sessionsOfBackends = `apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: p}
spec: {targetRef: {kind: Service, name: shop}, sessionPersistence: {strict: true SAID}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{kind: Service, name: shop}]
  rules:
  - matches: [{path: {value: /cart}}]
    backendRefs: [{name: cart}]
  - matches: [{path: {value: /stock}}]
    backendRefs: [{name: stock}]
`

// A client that goes to two backends by the policy of their parent has a session at each:
// the one does not end the other's, nor is it a 503 where sessions are strict.
func TestBackendsHaveSessionsOfTheirOwn(t *testing.T) {
	for said, names := range map[string][]string{
		"":                   {"outrigger-session-cart", "outrigger-session-stock", "outrigger-session-shop"},
		", sessionName: sid": {"sid"},
	} {
		s := newState()
		for _, name := range []string{"shop", "cart", "stock"} {
			s.apply(instance(name, "a", anywhere))
		}
		s.put(t, strings.Replace(sessionsOfBackends, " SAID", said, 1))
		built, problems := controlplane.Build(s.Model(), controlplane.Group{Kind: controlplane.KindMesh}, time.Now(), "")
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		routes, err := protojson.Marshal(built[server.TypeRoute][encode.OutboundRoutes])
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(routes), " ", "")
		for _, name := range names {
			if !strings.Contains(text, `"name":"`+name+`"`) {
				t.Errorf("%q: no session is by the name %s: %s", said, name, text)
			}
		}
		for _, scope := range []string{"shop", "cart", "stock"} {
			if !strings.Contains(text, `"scope":"`+scope+`"`) {
				t.Errorf("%q: no session is of %s alone: %s", said, scope, text)
			}
		}
	}
}
