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

// ejectionsOf are those of one endpoint: the first by name, and how many there are.
type ejectionsOf struct {
	first []sidecarservice.Ejected
	count int
}

// addEjections says of endpoints which sidecars leave them out, and since when. It goes
// through what is reported once, however many endpoints there are.
func (e explainer) addEjections(endpoints []rest.ExplainStep) {
	type place struct{ cluster, endpoint string }
	of := func(step *rest.ExplainStep) place {
		service, _, _ := strings.Cut(step.Object, "/")
		return place{encode.OutboundCluster(service), step.Name}
	}
	wanted := make(map[place]*ejectionsOf, len(endpoints))
	for i := range endpoints {
		wanted[of(&endpoints[i])] = &ejectionsOf{}
	}
	for _, x := range e.ejected() {
		w := wanted[place{x.Cluster, x.Endpoint}]
		if w == nil {
			continue
		}
		if w.count++; len(w.first) < maxNamedSidecars {
			w.first = append(w.first, x)
		}
	}
	now := time.Now()
	for i := range endpoints {
		w := wanted[of(&endpoints[i])]
		if w.count == 0 {
			continue
		}
		by := make([]string, len(w.first))
		for j, x := range w.first {
			by[j] = fmt.Sprintf("%s (%s ago, %s)", x.Node, age(x.Since, now), x.Detector)
		}
		more := ""
		if n := w.count - len(w.first); n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		endpoints[i].Reason += "; ejected by " + strings.Join(by, ", ") + more
	}
}
