// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

// objectStatus is the status that is answered with an object.
type objectStatus struct {
	mesh.Status
	// Source is where the object comes from: sourceAPI, or the file of the configuration
	// folder, whose name ends in .yaml, .yml or .json.
	Source string `json:"source"`
}

// sourceAPI is the source of what was applied or put.
const sourceAPI = "api"

func (s *Server) sourceOf(k mesh.Key) string { return cmp.Or(s.state.Source(k), sourceAPI) }

// objectView is an object with its status as one JSON object.
type objectView struct {
	object mesh.Object
	status objectStatus
}

// MarshalJSON adds the status as the last member.
func (v objectView) MarshalJSON() ([]byte, error) {
	body, err := plain(v.object)
	if err != nil {
		return nil, err
	}
	status, err := plain(v.status)
	if err != nil {
		return nil, err
	}
	out := append(body[:len(body)-1], `,"status":`...)
	return append(append(out, status...), '}'), nil
}

// plain is JSON without the escapes that only HTML needs: people read '>= 400'.
func plain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// reviewer reviews the objects of a model: the same one as long as there is no newer model,
// so that what lists all objects, in pages or not, indexes them once. Who shows many of
// them asks once: of an older model than the last there is no second one.
func (s *Server) reviewer(m *mesh.Model) *mesh.Reviewer {
	x := s.reviews.Load()
	if x != nil && x.Model() == m {
		return x
	}
	own := mesh.NewReviewer(m)
	if x == nil || m.Revision >= x.Model().Revision {
		s.reviews.CompareAndSwap(x, own)
	}
	return own
}

func (s *Server) view(x *mesh.Reviewer, o mesh.Object) objectView {
	status := x.Review(o)
	if t, ok := o.(*mesh.Tap); ok && !t.ExpiresAt().IsZero() && !s.now().Before(t.ExpiresAt()) {
		status.Conditions = append(status.Conditions, mesh.Condition{
			Type: "Expired", Status: true, Reason: "Expired", Field: "spec.expires", Message: "the tap ended at " + t.ExpiresAt().Format(time.RFC3339),
		})
	}
	if covers, faults := s.state.Covers(o.Key()); covers {
		status.Conditions = append(status.Conditions, coversAPI(s.sourceOf(o.Key()), faults))
	}
	return objectView{o, objectStatus{Status: status, Source: s.sourceOf(o.Key())}}
}

// coversAPI is the condition of an object of a file that covers the API's; faults are what is
// not understood of that one.
func coversAPI(file string, faults mesh.Errors) mesh.Condition {
	c := mesh.Condition{
		Type: mesh.ConditionConflicted, Status: true, Reason: "CoversAPI",
		Message: "it covers the object of that name that was made by the API, which is in force again when the file no longer has it",
	}
	if len(faults) > 0 {
		c.Field = faults[0].Path
		c.Message = fmt.Sprintf("%s covers the object of that name that was made by the API, which this version does not understand (%s): it is kept as it is, and in the store again when the file no longer has it", file, faults[0].Reason)
	}
	return c
}

// objectKey reads kind and name of the path.
func (s *Server) objectKey(w http.ResponseWriter, r *http.Request) (mesh.Key, bool) {
	k, err := mesh.KindNamed(r.PathValue("kind"))
	if err != nil {
		s.problem(w, r, problem{Status: http.StatusNotFound, Title: "Unknown kind", Detail: err.Error()})
		return mesh.Key{}, false
	}
	return mesh.Key{Kind: k.Name, Name: r.PathValue("name")}, true
}

func (s *Server) getObject(w http.ResponseWriter, r *http.Request) {
	k, ok := s.objectKey(w, r)
	if !ok {
		return
	}
	m := s.state.Model()
	o := m.Object(k)
	if o == nil {
		s.fail(w, r, store.ErrNotFound)
		return
	}
	revision := o.Head().Metadata.Revision
	setETag(w, revision)
	if !notModified(w, r, revision) {
		s.answer(w, http.StatusOK, s.view(s.reviewer(m), o))
	}
}

func (s *Server) putObject(w http.ResponseWriter, r *http.Request) {
	k, ok := s.objectKey(w, r)
	if !ok {
		return
	}
	if !jsonOrYAML(r) {
		s.problem(w, r, problem{Status: http.StatusUnsupportedMediaType, Detail: "send the object with Content-Type: application/json or application/yaml"})
		return
	}
	match, err := precondition(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	dryRun, err := boolParam(r, "dryRun")
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	data, err := body(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	o, err := mesh.ParseOne(data)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if o.Key() != k {
		s.fail(w, r, mesh.Errors{{Object: o.Key().String(), Path: "metadata.name", Reason: "the path of the request names " + clip(k.String())}})
		return
	}
	if match == (registry.Match{}) {
		match.Revision = o.Head().Metadata.Revision
	}
	write := s.state.PutObject
	if dryRun {
		write = s.state.CheckObject
	}
	result, err := write(r.Context(), o, match)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if result.Created && !dryRun {
		status = http.StatusCreated
		w.Header().Set("Location", "/v1/objects/"+k.Kind+"/"+k.Name)
	}
	w.Header().Set("Outrigger-Changed", strconv.FormatBool(result.Changed))
	setETag(w, result.Object.Head().Metadata.Revision)
	s.answer(w, status, objectView{result.Object, objectStatus{Status: result.Status, Source: s.sourceOf(k)}})
}

func (s *Server) deleteObject(w http.ResponseWriter, r *http.Request) {
	k, ok := s.objectKey(w, r)
	if !ok {
		return
	}
	match, err := precondition(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	revision, err := s.state.DeleteObject(r.Context(), k, match)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.answer(w, http.StatusOK, map[string]any{"deleted": k.String(), "revision": revision})
}

func (s *Server) listObjects(w http.ResponseWriter, r *http.Request) {
	kind, err := kindParam(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	if watching(r) {
		s.watchObjects(w, r, kind)
		return
	}
	after, limit, err := paging(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	m := s.state.Model()
	p := cut(m, sortedObjects(m, kind), func(o mesh.Object) string { return o.Key().String() }, after, limit)
	views := page[objectView]{Items: make([]objectView, len(p.Items)), Continue: p.Continue, Model: p.Model}
	x := s.reviewer(m)
	for i, o := range p.Items {
		views.Items[i] = s.view(x, o)
	}
	s.answer(w, http.StatusOK, views)
}

// sortedObjects lists the objects of a kind, or of all, by kind and name.
func sortedObjects(m *mesh.Model, kind string) []mesh.Object {
	var out []mesh.Object
	for _, k := range slices.Sorted(maps.Keys(m.Objects)) {
		if kind != "" && k != kind {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(m.Objects[k])) {
			out = append(out, m.Objects[k][name])
		}
	}
	// Key().String() orders differently where one name is a prefix of another: page tokens compare it.
	slices.SortFunc(out, func(a, b mesh.Object) int { return strings.Compare(a.Key().String(), b.Key().String()) })
	return out
}

func kindParam(r *http.Request) (string, error) {
	v := r.URL.Query().Get("kind")
	if v == "" {
		return "", nil
	}
	k, err := mesh.KindNamed(v)
	if err != nil {
		return "", errors.New("kind: " + err.Error())
	}
	return k.Name, nil
}

func boolParam(r *http.Request, name string) (bool, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, errors.New(name + ": want true or false")
	}
	return b, nil
}
