// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

// problem is an RFC 9457 problem document. Errors and Current are our extensions.
type problem struct {
	Type     string      `json:"type"` // about:blank: the status says it all
	Title    string      `json:"title"`
	Status   int         `json:"status"`
	Detail   string      `json:"detail,omitempty"`
	Instance string      `json:"instance,omitempty"` // path of the request
	Errors   mesh.Errors `json:"errors,omitempty"`   // each wrong field
	Current  uint64      `json:"currentRevision,omitempty"`
}

func (s *Server) problem(w http.ResponseWriter, r *http.Request, p problem) {
	p.Type, p.Instance = "about:blank", r.URL.Path
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		s.log.Debug("write answer", "error", err)
	}
}

// fail answers an error of the state or of the body.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var fields mesh.Errors
	var revision *registry.RevisionError
	var owned *store.OwnedError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &fields):
		s.problem(w, r, fieldProblem(fields))
	case errors.As(err, &revision):
		s.problem(w, r, problem{Status: http.StatusPreconditionFailed, Title: "Revision is not the current one", Detail: err.Error(), Current: revision.Current})
	case errors.As(err, &owned):
		s.problem(w, r, problem{Status: http.StatusConflict, Title: "Owned by a file", Detail: err.Error()})
	case errors.Is(err, registry.ErrIdentity):
		s.problem(w, r, problem{Status: http.StatusConflict, Title: "The instance has an identity", Detail: err.Error()})
	case errors.As(err, &tooLarge):
		w.Header().Set("Connection", "close")
		s.problem(w, r, problem{Status: http.StatusRequestEntityTooLarge, Title: "Body is too large", Detail: "the limit is " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes"})
	case errors.Is(err, mesh.ErrEmpty):
		s.problem(w, r, problem{Status: http.StatusBadRequest, Title: "Empty body", Detail: err.Error()})
	case errors.Is(err, store.ErrNotFound), errors.Is(err, registry.ErrNotFound):
		s.problem(w, r, problem{Status: http.StatusNotFound, Detail: err.Error()})
	case errors.Is(err, store.ErrNoSpace), errors.Is(err, registry.ErrFull):
		s.log.Error("write refused", "error", err)
		s.problem(w, r, problem{Status: http.StatusInsufficientStorage, Title: "No space to store it", Detail: err.Error() + "; nothing was changed, reads go on"})
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		s.problem(w, r, problem{Status: http.StatusServiceUnavailable, Title: "The request ended before it was done"})
	default:
		s.log.Error("request failed", "path", r.URL.Path, "error", err)
		w.Header().Set("Retry-After", "5")
		s.problem(w, r, problem{Status: http.StatusServiceUnavailable, Title: "It cannot be stored now", Detail: err.Error() + "; nothing was changed, reads go on"})
	}
}

func fieldProblem(fields mesh.Errors) problem {
	p := problem{Status: http.StatusUnprocessableEntity, Title: "Fields are wrong", Errors: fields}
	if len(fields) == 1 {
		p.Title, p.Detail = "A field is wrong", fields[0].Error()
		if fields[0].Path == "" {
			p.Status, p.Title = http.StatusBadRequest, "It cannot be read"
		}
		return p
	}
	p.Detail = fields[0].Error() + ", and " + strconv.Itoa(len(fields)-1) + " more"
	return p
}

func (s *Server) badRequest(w http.ResponseWriter, r *http.Request, detail string) {
	s.problem(w, r, problem{Status: http.StatusBadRequest, Detail: detail})
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.problem(w, r, problem{Status: http.StatusNotFound, Detail: "no such path; /openapi.json lists what there is"})
}

// allowed turns the mux's own plain-text 405 into a problem document.
func allowed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		if pattern == "/" {
			if allow := methodsFor(mux, r); len(allow) > 0 {
				w.Header().Set("Allow", strings.Join(allow, ", "))
				writeMethodProblem(w, r)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

func methodsFor(mux *http.ServeMux, r *http.Request) []string {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, pattern := mux.Handler(probe); pattern != "/" && pattern != "" {
			allow = append(allow, m)
		}
	}
	return allow
}

func writeMethodProblem(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusMethodNotAllowed)
	_ = json.NewEncoder(w).Encode(problem{Type: "about:blank", Title: http.StatusText(http.StatusMethodNotAllowed), Status: http.StatusMethodNotAllowed, Instance: r.URL.Path}) // the caller is gone if this fails
}

func clip(s string) string {
	const limit = 64
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
