// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/rest"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

func ejectedOf(x sidecarservice.Ejected) rest.EjectedEndpoint {
	return rest.EjectedEndpoint{Cluster: x.Cluster, Endpoint: x.Endpoint, Detector: x.Detector, Ejections: x.Ejections, Since: x.Since, Until: x.Until}
}

// maxNamedSidecars bounds the sidecars that an explanation names for an endpoint.
const maxNamedSidecars = 3

// addEjections says of endpoints which sidecars leave them out, and since when.
func (e explainer) addEjections(endpoints []rest.ExplainStep) {
	all := e.ejected()
	now := time.Now()
	for i := range endpoints {
		step := &endpoints[i]
		service, _, _ := strings.Cut(step.Object, "/")
		var by []string
		for _, x := range all {
			if x.Endpoint == step.Name && x.Cluster == encode.OutboundCluster(service) {
				by = append(by, fmt.Sprintf("%s (%s ago, %s)", x.Node, age(x.Since, now), x.Detector))
			}
		}
		if len(by) == 0 {
			continue
		}
		more := ""
		if n := len(by) - maxNamedSidecars; n > 0 {
			by, more = by[:maxNamedSidecars], fmt.Sprintf(" and %d more", n)
		}
		step.Reason += "; ejected by " + strings.Join(by, ", ") + more
	}
}
