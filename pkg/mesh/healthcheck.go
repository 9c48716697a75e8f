// SPDX-License-Identifier: Apache-2.0

package mesh

import "strings"

// HealthCheck says how the instances of a service are asked whether they are well.
// Exactly one of HTTP, GRPC and TCP is set.
type HealthCheck struct {
	HTTP               *HTTPHealthCheck `json:"http,omitempty" doc:"GET of a path; no redirect is followed."`
	GRPC               *GRPCHealthCheck `json:"grpc,omitempty" doc:"A call of grpc.health.v1.Health/Check that has to answer SERVING."`
	TCP                *TCPHealthCheck  `json:"tcp,omitempty" doc:"A connection that opens."`
	Interval           *Duration        `json:"interval,omitempty" rule:"mindur=100ms,maxdur=1h" doc:"Time between checks; 5s when empty."`
	Timeout            *Duration        `json:"timeout,omitempty" rule:"mindur=10ms,maxdur=5m" doc:"Time for an answer; 1s when empty."`
	UnhealthyThreshold *uint32          `json:"unhealthyThreshold,omitempty" rule:"min=1,max=100" doc:"Checks without an answer in a row that take an instance out; 3 when empty. An answer that is not wanted takes it out at once."`
	HealthyThreshold   *uint32          `json:"healthyThreshold,omitempty" rule:"min=1,max=100" doc:"Successes in a row that bring it back; 2 when empty. The first check decides alone."`
}

// HTTPHealthCheck is a request of HTTP.
type HTTPHealthCheck struct {
	Path     string        `json:"path" rule:"required,maxlen=1024" doc:"Path to ask for, with a query if need be."`
	Host     string        `json:"host,omitempty" rule:"maxlen=253" doc:"Host to ask for; the service's name when empty."`
	Statuses []StatusMatch `json:"statuses,omitzero" rule:"maxitems=16" doc:"Statuses that are healthy; 200 when empty."`
}

// GRPCHealthCheck is a call of gRPC.
type GRPCHealthCheck struct {
	Service string `json:"service,omitempty" rule:"maxlen=1024" doc:"Service that is asked about; the whole server when empty."`
}

// TCPHealthCheck has no settings.
type TCPHealthCheck struct{}

func (h *HealthCheck) check(f *faults, path string) {
	set := 0
	for _, s := range []bool{h.HTTP != nil, h.GRPC != nil, h.TCP != nil} {
		if s {
			set++
		}
	}
	if set != 1 {
		f.add(path, "want exactly one of http, grpc and tcp")
	}
	if h.HTTP == nil {
		return
	}
	if p := h.HTTP.Path; p != "" && (p[0] != '/' || strings.ContainsAny(p, " \t\r\n#") || strings.ContainsFunc(p, notPrintable)) {
		f.add(path+".http.path", "want an absolute path without spaces and #, got %q", clip(p))
	}
	if strings.ContainsAny(h.HTTP.Host, " /?#@") || strings.ContainsFunc(h.HTTP.Host, notPrintable) {
		f.add(path+".http.host", "%q is no host", clip(h.HTTP.Host))
	}
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }
