// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"io"
)

// WriteMetrics appends the state of the xDS server as Prometheus text, in names
// that begin with outrigger_xds_. That of building is BuildStatus.
func (cp *ControlPlane) WriteMetrics(w io.Writer) {
	s := cp.server.Stats()
	unsynced := 0
	for _, n := range cp.server.Status() {
		if n.Connected && !n.Synced() {
			unsynced++
		}
	}
	for _, m := range []struct {
		name, kind, help string
		value            float64
	}{
		{"xds_nodes", "gauge", "Clients that are connected.", float64(s.Nodes)},
		{"xds_nodes_unsynced", "gauge", "Clients that have not accepted the latest of all they asked for.", float64(unsynced)},
		{"xds_streams", "gauge", "Open streams.", float64(s.Streams)},
		{"xds_streams_refused_total", "counter", "Streams that were not admitted.", float64(s.Refused)},
		{"xds_marshals_total", "counter", "Resources marshalled.", float64(s.Marshals)},
		{"xds_responses_total", "counter", "Responses sent.", float64(s.Responses)},
		{"xds_resources_sent_total", "counter", "Resources and removals in responses.", float64(s.Resources)},
		{"xds_nacks_total", "counter", "Responses that clients refused.", float64(s.Nacks)},
		{"xds_resources_held_total", "counter", "Times that a refused resource was held back.", float64(s.Held)},
		{"xds_oversize_responses_total", "counter", "Responses over 4 MiB, which some clients cannot receive.", float64(s.Oversize)},
		{"xds_requests_unserved_total", "counter", "Requests for types that are not served.", float64(s.Unserved)},
		{"xds_events_dropped_total", "counter", "Events that nobody took in time.", float64(s.EventsDropped)},
		{"xds_channel_full_total", "counter", "Responses that a stream had no room for; always 0 unless there is a bug.", float64(s.ChannelFull)},
	} {
		fmt.Fprintf(w, "# HELP outrigger_%[1]s %[2]s\n# TYPE outrigger_%[1]s %[3]s\noutrigger_%[1]s %[4]g\n", m.name, m.help, m.kind, m.value)
	}
}
