// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Sidecar is one client of the xDS server and what it made of what it was given.
type Sidecar struct {
	Node      string    `json:"node"`
	Service   string    `json:"service,omitempty"`
	Client    string    `json:"client,omitempty"` // user agent and version
	Zone      string    `json:"zone,omitempty"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"connectedSince,omitzero"`
	LeftAt    time.Time `json:"leftAt,omitzero"`
	Remote    []string  `json:"remote,omitempty"`
	Protocol  []string  `json:"protocol,omitempty"`
	Synced    bool      `json:"synced"` // it has accepted the latest of all it asked for
	// Inbound is what its inbound listener takes: plaintext, strict or permissive
	// (mutual TLS), or closed where its service's policy wants an identity that it has not.
	Inbound string        `json:"inbound,omitempty"`
	Types   []SidecarType `json:"types,omitempty"`
	// Ejected are the endpoints that it leaves out now, as it has reported.
	Ejected []EjectedEndpoint `json:"ejected,omitempty"`
	// Shared are the sidecars that have its node id at once, where there are several: what
	// is said here is of all of them.
	Shared []SharedNode `json:"shared,omitempty"`
}

// SharedNode is one of several sidecars that have one node id.
type SharedNode struct {
	Remote  string    `json:"remote"`
	Since   time.Time `json:"connectedSince,omitzero"`
	Service string    `json:"service,omitempty"`
	Inbound string    `json:"inbound,omitempty"` // where it listens
}

// EjectedEndpoint is an endpoint that a sidecar leaves out.
type EjectedEndpoint struct {
	Cluster   string    `json:"cluster"`
	Endpoint  string    `json:"endpoint"`
	Detector  string    `json:"detector,omitempty"` // Envoy's name
	Ejections uint32    `json:"ejections,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
}

// SidecarType is one resource type that a sidecar subscribes to.
type SidecarType struct {
	Type     string      `json:"type"`
	Groups   []string    `json:"groups,omitempty"`
	Names    int         `json:"names,omitempty"`
	Latest   string      `json:"latest,omitempty"`
	Accepted string      `json:"accepted,omitempty"`
	Pending  bool        `json:"pending,omitempty"`
	Rejected []Rejection `json:"rejected,omitempty"`
	Missing  []string    `json:"missing,omitempty"`
}

// Rejection is a resource, or a whole response (no Resource), that a sidecar refused.
type Rejection struct {
	Resource string    `json:"resource,omitempty"`
	Version  string    `json:"version,omitempty"`
	Reason   string    `json:"reason"`
	At       time.Time `json:"at,omitzero"`
}

func (s *Server) sidecars(w http.ResponseWriter, r *http.Request) Sidecars {
	if s.config.Sidecars == nil {
		s.problem(w, r, problem{Status: http.StatusServiceUnavailable, Detail: "this control plane serves no xDS"})
	}
	return s.config.Sidecars
}

func (s *Server) listSidecars(w http.ResponseWriter, r *http.Request) {
	src := s.sidecars(w, r)
	if src == nil {
		return
	}
	after, limit, err := paging(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	s.answer(w, http.StatusOK, cut(s.state.Model(), src.Sidecars(), func(x Sidecar) string { return x.Node }, after, limit))
}

func (s *Server) sidecarConfig(w http.ResponseWriter, r *http.Request) {
	src := s.sidecars(w, r)
	if src == nil {
		return
	}
	config, ok := src.SidecarConfig(r.PathValue("node"))
	if !ok {
		s.problem(w, r, problem{Status: http.StatusNotFound, Detail: "no sidecar of that node id is or was connected"})
		return
	}
	s.answer(w, http.StatusOK, config)
}

// ExplainQuery is a request to explain. One of From, Node and Service is set, or
// none for a client that is not of the mesh.
type ExplainQuery struct {
	From    string // service, SERVICE/INSTANCE, node id or instance id of who would send it
	Node    string // node id of the sidecar that would send it
	Service string // service whose sidecar would send it
	Method  string
	URL     *url.URL
	Headers http.Header
}

// Explanation is the way of a request, step by step.
type Explanation struct {
	Outcome   string        `json:"outcome"` // a sentence: where it goes, or why nowhere
	Result    string        `json:"result"`  // in a word: routed, answered, notFound, unavailable, refused
	Routed    bool          `json:"routed"`
	Steps     []ExplainStep `json:"steps"`
	Endpoints []ExplainStep `json:"endpoints,omitempty"`
	Hints     []string      `json:"hints,omitempty"` // what to do where mutual TLS is in the way
}

// ExplainStep is one decision with its reason.
type ExplainStep struct {
	Stage  string `json:"stage"` // sender, listener, virtual host, route, cluster, endpoint
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"`
	Object string `json:"object,omitempty"` // Kind/name it comes from
}

// ErrUnknownNode is returned by an Explainer for a node or service it does not know.
var ErrUnknownNode = errors.New("no such node or service")

// maxExplainHeaders bounds the headers of a query.
const maxExplainHeaders = 64

// maxSenderBytes is more than a service and an instance's id have together.
const maxSenderBytes = 512

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	if s.config.Explainer == nil {
		s.problem(w, r, problem{Status: http.StatusServiceUnavailable, Detail: "this control plane serves no xDS"})
		return
	}
	q, errs := explainQuery(r.URL.Query())
	if len(errs) > 0 {
		s.fail(w, r, errs)
		return
	}
	x, err := s.config.Explainer.Explain(r.Context(), q)
	switch {
	case errors.Is(err, ErrUnknownNode):
		s.problem(w, r, problem{Status: http.StatusNotFound, Detail: err.Error()})
	case err != nil:
		s.badRequest(w, r, err.Error())
	default:
		s.answer(w, http.StatusOK, x)
	}
}

func explainQuery(v url.Values) (ExplainQuery, mesh.Errors) {
	var errs mesh.Errors
	bad := func(path, reason string) { errs = append(errs, &mesh.FieldError{Path: path, Reason: reason}) }
	q := ExplainQuery{From: v.Get("from"), Node: v.Get("node"), Service: v.Get("service"), Method: v.Get("method"), Headers: http.Header{}}
	switch {
	case q.From != "" && (q.Node != "" || q.Service != ""):
		bad("from", "from excludes node and service")
	case q.Node != "" && q.Service != "":
		bad("service", "node and service exclude each other")
	}
	if len(q.From) > maxSenderBytes {
		bad("from", "want a service, SERVICE/INSTANCE, a node id or an instance id")
	}
	if q.Method == "" {
		q.Method = http.MethodGet
	}
	u, err := url.Parse(v.Get("url"))
	if err != nil || u.Host == "" || !slices.Contains([]string{"http", mesh.ProtocolTCP, mesh.ProtocolTLS}, u.Scheme) {
		bad("url", "want an http:// URL such as http://payments/v1/x, or tcp://db:5432, got "+clip(v.Get("url")))
	} else if u.Path == "" {
		u.Path = "/"
	}
	q.URL = u
	headers := v["header"]
	if len(headers) > maxExplainHeaders {
		bad("header", "too many headers")
		headers = nil
	}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			bad("header", "want 'name: value', got "+clip(h))
			continue
		}
		q.Headers.Add(name, strings.TrimSpace(value))
	}
	return q, errs
}
