// SPDX-License-Identifier: Apache-2.0

package rest

import "net/http"

// route is one path with one method: what answers it and what the OpenAPI document says of it.
type route struct {
	method, path string
	id           string // operationId
	about        string
	query        []param
	body         any  // struct whose schema the body has; nil for none
	object       bool // the body and the answer are objects of the configuration language
	write        bool // takes If-Match and If-None-Match
	answers      []int
	handle       http.HandlerFunc
	maxBody      int64                    // bytes of the body; 0 for the API's own limit
	stream       func(*http.Request) bool // true when the request opens a stream
}

// param is one query parameter.
type param struct{ name, kind, about string }

var pageParams = []param{
	{"limit", "integer", "Items on a page, 1 to 1000; 500 when empty."},
	{"continue", "string", "Token of the page before."},
}

// routes is the whole API.
func (s *Server) routes() []route {
	watch := param{"watch", "boolean", "Stream changes as server-sent events; Last-Event-ID resumes."}
	return []route{
		{method: "GET", path: "/v1/objects", id: "listObjects", about: "List objects, or watch them.", query: append([]param{{"kind", "string", "Only this kind."}, watch}, pageParams...), answers: []int{200, 400}, handle: s.listObjects, stream: watching},
		{method: "GET", path: "/v1/objects/{kind}/{name}", id: "getObject", about: "Read an object with its status.", object: true, answers: []int{200, 304, 404}, handle: s.getObject},
		{method: "PUT", path: "/v1/objects/{kind}/{name}", id: "putObject", about: "Create or change an object.", query: []param{{"dryRun", "boolean", "Check everything and store nothing."}}, object: true, write: true, answers: []int{200, 201, 400, 404, 409, 412, 413, 415, 422, 503, 507}, handle: s.putObject},
		{method: "DELETE", path: "/v1/objects/{kind}/{name}", id: "deleteObject", about: "Delete an object.", write: true, answers: []int{200, 400, 404, 409, 412, 503, 507}, handle: s.deleteObject},

		{method: "GET", path: "/v1/services", id: "listServices", about: "List services.", query: pageParams, answers: []int{200, 400}, handle: s.listServices},
		{method: "GET", path: "/v1/services/{service}", id: "getService", about: "Read a service with its instances.", answers: []int{200, 404}, handle: s.getService},
		{method: "GET", path: "/v1/services/{service}/instances", id: "listInstances", about: "List the instances of a service.", query: pageParams, answers: []int{200, 400, 404}, handle: s.listInstances},
		{method: "GET", path: "/v1/services/{service}/instances/{id}", id: "getInstance", about: "Read an instance.", answers: []int{200, 404}, handle: s.getInstance},
		{method: "PUT", path: "/v1/services/{service}/instances/{id}", id: "putInstance", about: "Register an instance, or change it.", body: instanceBody{}, write: true, answers: []int{200, 201, 400, 409, 412, 413, 415, 422, 503, 507}, handle: s.putInstance},
		{method: "DELETE", path: "/v1/services/{service}/instances/{id}", id: "deleteInstance", about: "Take an instance out at once.", write: true, answers: []int{200, 400, 404, 409, 412, 503, 507}, handle: s.deleteInstance},
		{method: "PUT", path: "/v1/services/{service}/instances/{id}/heartbeat", id: "heartbeat", about: "Renew the lease; a body may carry the health.", body: healthBody{}, answers: []int{200, 404, 422}, handle: s.heartbeat},
		{method: "PUT", path: "/v1/services/{service}/instances/{id}/health", id: "putHealth", about: "Change the health only.", body: healthBody{}, answers: []int{200, 404, 415, 422}, handle: s.putHealth},
		{method: "DELETE", path: "/v1/services/{service}/held", id: "releaseHeld", about: "Take out the instances that the shrink guard keeps.", answers: []int{200, 503, 507}, handle: s.releaseHeld},

		{method: "GET", path: "/v1/sidecars", id: "listSidecars", about: "List sidecars: connected since, accepted, refused and why, missing.", query: pageParams, answers: []int{200, 400, 503}, handle: s.listSidecars},
		{method: "GET", path: "/v1/sidecars/{node}/config", id: "getSidecarConfig", about: "Read what a sidecar was last given.", answers: []int{200, 404, 503}, handle: s.sidecarConfig},
		{method: "GET", path: "/v1/explain", id: "explain", about: "Say where a request would go, step by step.", query: []param{
			{"from", "string", "Who would send it: a service, with or without instances, SERVICE/INSTANCE, a node id or an instance id."},
			{"node", "string", "Node id of the sidecar that would send it."}, {"service", "string", "Service whose sidecar would send it."},
			{"method", "string", "Method; GET when empty."}, {"url", "string", "URL, such as http://payments/v1/x."}, {"header", "string", "Request header 'name: value'; may be repeated."},
		}, answers: []int{200, 400, 404, 422, 503}, handle: s.explain},
		{method: "GET", path: "/v1/events", id: "listEvents", about: "List recent events, with those that sidecars report, or watch them: so do those who accept text/event-stream.", query: []param{
			{"after", "integer", "Only events after this sequence."}, {"service", "string", "Only events of this service, its instances and sidecars, and of objects that name it."},
			{"sidecar", "string", "Only events of the sidecar with this node id."}, {"kind", "string", "Only events of these kinds, comma separated, such as ejection,circuit."},
			watch, pageParams[0],
		}, answers: []int{200, 400}, handle: s.listEvents, stream: eventStream},
		{method: "GET", path: "/v1/status", id: "getStatus", about: "The control plane in short.", answers: []int{200}, handle: s.status},

		{method: "GET", path: "/v1/ca", id: "getAuthority", about: "The certificate authority: its roots with their dates, and the trust bundle.", answers: []int{200, 503}, handle: s.authorityStatus},
		{method: "POST", path: "/v1/ca/rotate", id: "rotateAuthority", about: "Announce a new root, which signs after the overlap.", body: rotateBody{}, answers: []int{200, 400, 409, 415, 422, 503}, handle: s.rotateAuthority},
		{method: "POST", path: "/v1/ca/tokens", id: "makeToken", about: "Make a bootstrap token for sidecars of some services.", body: tokenBody{}, answers: []int{200, 400, 415, 422, 503}, handle: s.makeToken},

		{method: "GET", path: "/v1/schemas", id: "listSchemas", about: "List the kinds that have a JSON Schema.", answers: []int{200}, handle: s.listSchemas},
		{method: "GET", path: "/v1/schemas/{kind}", id: "getSchema", about: "JSON Schema of a kind.", answers: []int{200, 404}, handle: s.getSchema},

		{method: "GET", path: "/healthz/live", id: "live", about: "Whether the process answers.", answers: []int{200}, handle: s.live},
		{method: "GET", path: "/healthz/ready", id: "ready", about: "Whether the control plane is ready.", answers: []int{200, 503}, handle: s.ready},
		{method: "GET", path: "/metrics", id: "metrics", about: "Metrics in Prometheus text format.", answers: []int{200}, handle: s.metrics},
		{method: "GET", path: "/openapi.json", id: "openapi", about: "This document.", answers: []int{200}, handle: s.openAPI},
	}
}
