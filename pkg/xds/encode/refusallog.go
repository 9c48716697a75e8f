// SPDX-License-Identifier: Apache-2.0

package encode

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// refusalLine and refusalJSON tell of a connection that was refused before there was
// a request. They are in place of the default formats, which have no field for it.
const refusalLine = `[%START_TIME%] connection from %DOWNSTREAM_REMOTE_ADDRESS% refused: ` +
	`%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%"`

var refusalJSON = map[string]string{
	"start_time":                          "%START_TIME%",
	"response_flags":                      "%RESPONSE_FLAGS%",
	"connection_termination_details":      "%CONNECTION_TERMINATION_DETAILS%",
	"downstream_transport_failure_reason": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
	"downstream_remote":                   "%DOWNSTREAM_REMOTE_ADDRESS%",
}

// refusalLogs are the logs of a listener whose connections may be refused: the same
// files as those of requests. Filters are for requests and do not apply.
func refusalLogs(logs []mesh.AccessLog) ([]*accesslogv3.AccessLog, error) {
	bare := make([]mesh.AccessLog, len(logs))
	for i, l := range logs {
		bare[i] = mesh.AccessLog{File: l.File, Format: l.Format}
		switch {
		case l.Format == nil || !l.Format.JSON && l.Format.Line == "":
			bare[i].Format = &mesh.AccessLogFormat{Line: refusalLine}
		case l.Format.JSON && len(l.Format.Fields) == 0:
			bare[i].Format = &mesh.AccessLogFormat{JSON: true, Fields: refusalJSON}
		}
	}
	out, err := accessLogs(bare)
	for _, l := range out {
		l.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			// DC with a reason: the handshake; NR: no filter chain.
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"DC", "NR"}},
		}}
	}
	return out, err
}
