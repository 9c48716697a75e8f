// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"cmp"
	"fmt"
	"net/http"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// fallback says what answers in place of an error of the mesh, in the order in which it is
// asked. Only sidecars of the
// mesh know fallbacks, and only of requests: method is empty for a connection.
func (x *Explanation) fallback(index *encode.Index, g Group, method string, policy *mesh.TrafficPolicy) {
	if method == "" || policy == nil || policy.Spec.Fallback == nil || g.Kind == KindEnvoy || g.Kind == KindGRPC {
		return
	}
	fb, object := policy.Spec.Fallback, policy.Key().String()
	if fb.Service != "" {
		why := "asked where the service does not answer"
		if index.LosesFallback(policy) {
			why = "left out: there is no such service"
		}
		x.step("fallback", fb.Service, why, object)
	}
	if fb.Cached != nil {
		why := "the last good answer, where one is kept"
		if method != http.MethodGet {
			why = fmt.Sprintf("nothing for %s: answers to GET alone are kept", method)
		}
		x.step("fallback", "cached", why, object)
	}
	if fb.Writes() {
		x.step("fallback", fmt.Sprint(cmp.Or(fb.Status, http.StatusOK)), "the policy's own answer", object)
	}
}
