// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		s.log.Debug("write answer", "error", err)
	}
}

func setETag(w http.ResponseWriter, revision uint64) {
	if revision != 0 {
		w.Header().Set("ETag", `"`+strconv.FormatUint(revision, 10)+`"`)
	}
}

// notModified answers 304 when the caller has that revision.
func notModified(w http.ResponseWriter, r *http.Request, revision uint64) bool {
	want := `"` + strconv.FormatUint(revision, 10) + `"`
	for tag := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if tag = strings.TrimSpace(tag); revision != 0 && (tag == want || tag == "W/"+want) {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// precondition reads If-Match and If-None-Match of a write (RFC 9110 section 13.1).
func precondition(r *http.Request) (registry.Match, error) {
	var m registry.Match
	if v := strings.TrimSpace(r.Header.Get("If-Match")); v == "*" {
		m.Exists = true
	} else if v != "" {
		n, err := strconv.ParseUint(strings.Trim(v, `"`), 10, 64)
		if err != nil || n == 0 {
			return m, errors.New(`If-Match: want one revision as the ETag gave it, such as "42", or *`)
		}
		m.Revision = n
	}
	if v := strings.TrimSpace(r.Header.Get("If-None-Match")); v == "*" {
		m.Absent = true
	} else if v != "" {
		return m, errors.New("If-None-Match: a write takes only *")
	}
	return m, nil
}

// body reads the request's body within the limit.
func body(r *http.Request) ([]byte, error) { return io.ReadAll(r.Body) }

// page is one page of a list.
type page[T any] struct {
	Items []T `json:"items"`
	// Continue asks for the next page when it is sent back; empty on the last one.
	Continue string `json:"continue,omitempty"`
	// Model is the revision of the model that the page was read from.
	Model uint64 `json:"modelRevision"`
}

// paging reads limit and continue. The token is the last key of the page before,
// so a list that changes between pages repeats and loses nothing that stayed.
func paging(r *http.Request) (after string, limit int, err error) {
	limit = defaultPageSize
	q := r.URL.Query()
	if v := q.Get("limit"); v != "" {
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 || limit > maxPageSize {
			return "", 0, errors.New("limit: want a number from 1 to " + strconv.Itoa(maxPageSize))
		}
	}
	if v := q.Get("continue"); v != "" {
		key, err := base64.RawURLEncoding.DecodeString(v)
		if err != nil || len(key) > 1024 {
			return "", 0, errors.New("continue: not a token of this API")
		}
		after = string(key)
	}
	return after, limit, nil
}

// cut makes a page of a sorted list.
func cut[T any](m *mesh.Model, list []T, key func(T) string, after string, limit int) page[T] {
	from := 0
	for from < len(list) && after != "" && key(list[from]) <= after {
		from++
	}
	list = list[from:]
	p := page[T]{Items: list, Model: m.Revision}
	if len(list) > limit {
		p.Items = list[:limit]
		p.Continue = base64.RawURLEncoding.EncodeToString([]byte(key(list[limit-1])))
	}
	if p.Items == nil {
		p.Items = []T{}
	}
	return p
}

// answerAs writes v with a Content-Type that is already set.
func (s *Server) answerAs(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("write answer", "error", err)
	}
}
