// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// statusView is the control plane in short.
type statusView struct {
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Ready     bool      `json:"ready"`
	NotReady  string    `json:"notReady,omitempty"`
	Model     uint64    `json:"modelRevision"`
	Services  int       `json:"services"`
	Instances int       `json:"instances"`
	Held      int       `json:"held"`      // by the shrink guard
	Unhealthy int       `json:"unhealthy"` // instances that are left out while others are healthy
	// UnhealthyInstances are the first of them, by service and id.
	UnhealthyInstances []unhealthyInstance `json:"unhealthyInstances,omitempty"`
	Objects            map[string]int      `json:"objects"`
	Warned             int                 `json:"warned"` // objects with warnings: in force, and not all of it, or not as it says
	// WarnedObjects are the first of them, by kind and name.
	WarnedObjects []warnedObject         `json:"warnedObjects,omitempty"`
	Sidecars      sidecarCounts          `json:"sidecars"`
	Files         map[string]mesh.Errors `json:"files,omitempty"` // configuration files with errors
	// NotUnderstood are the first of the objects in the store, by kind and name, that are not
	// in force as this version does not understand them.
	NotUnderstood []notUnderstood `json:"notUnderstood,omitempty"`
}

// Bounds of the lists in the status; the numbers beside them count all.
const (
	maxUnhealthy = 100
	maxWarned    = 100
	maxStrange   = 100
)

type notUnderstood struct {
	Kind   string      `json:"kind"`
	Name   string      `json:"name"`
	Errors mesh.Errors `json:"errors"`
}

type warnedObject struct {
	Kind     string   `json:"kind"`
	Name     string   `json:"name"`
	Source   string   `json:"source"`
	Warnings []string `json:"warnings"` // as "field: message"
}

type unhealthyInstance struct {
	Service string      `json:"service"`
	ID      string      `json:"id"`
	Address string      `json:"address"` // with the port
	Health  mesh.Health `json:"health"`
}

type sidecarCounts struct {
	Connected int `json:"connected"`
	Synced    int `json:"synced"`
	Rejecting int `json:"rejecting"` // connected, and refused something
}

func (s *Server) statusView() statusView {
	m := s.state.Model()
	v := statusView{
		Version: s.config.Version, Started: s.started.UTC(), Ready: true, Model: m.Revision,
		Services: len(m.Services), Objects: map[string]int{}, Files: s.state.FileFaults(),
	}
	if s.config.Ready != nil {
		if err := s.config.Ready(); err != nil {
			v.Ready, v.NotReady = false, err.Error()
		}
	}
	strange := s.state.NotUnderstood()
	for _, k := range slices.SortedFunc(maps.Keys(strange), func(a, b mesh.Key) int { return strings.Compare(a.String(), b.String()) }) {
		if len(v.NotUnderstood) < maxStrange {
			v.NotUnderstood = append(v.NotUnderstood, notUnderstood{k.Kind, k.Name, strange[k]})
		}
	}
	v.countInstances(m)
	for _, k := range mesh.Kinds() {
		v.Objects[k.Name] = len(m.Objects[k.Name])
	}
	if s.config.Sidecars != nil {
		for _, x := range s.config.Sidecars.Sidecars() {
			v.Sidecars.count(x)
		}
	}
	return v
}

func (v *statusView) countInstances(m *mesh.Model) {
	for _, name := range m.ServiceNames() {
		v.Instances += len(m.Instances[name])
		for _, i := range m.Instances[name] {
			if i.Held {
				v.Held++
			}
			if i.Routable() {
				continue
			}
			if v.Unhealthy++; v.Unhealthy <= maxUnhealthy {
				address := net.JoinHostPort(i.Address, strconv.Itoa(int(i.Port)))
				v.UnhealthyInstances = append(v.UnhealthyInstances, unhealthyInstance{i.Service, i.ID, address, i.Health})
			}
		}
	}
}

func (s *Server) countWarned(v *statusView, m *mesh.Model) {
	x := s.reviewer(m)
	for _, o := range sortedObjects(m, "") {
		status := s.view(x, o).status
		warnings := status.Warnings()
		if len(warnings) == 0 {
			continue
		}
		if v.Warned++; v.Warned <= maxWarned {
			k := o.Key()
			v.WarnedObjects = append(v.WarnedObjects, warnedObject{k.Kind, k.Name, status.Source, warnings})
		}
	}
}

func (c *sidecarCounts) count(x Sidecar) {
	if !x.Connected {
		return
	}
	c.Connected++
	if x.Synced {
		c.Synced++
	}
	for _, t := range x.Types {
		if len(t.Rejected) > 0 {
			c.Rejecting++
			return
		}
	}
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	v := s.statusView()
	s.countWarned(&v, s.state.Model()) // not for each scrape of metrics: all objects are looked at
	s.answer(w, http.StatusOK, v)
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, map[string]string{"status": "live"})
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.config.Ready != nil {
		if err := s.config.Ready(); err != nil {
			s.problem(w, r, problem{Status: http.StatusServiceUnavailable, Title: "Not ready", Detail: err.Error()})
			return
		}
	}
	s.answer(w, http.StatusOK, map[string]string{"status": "ready"})
}

func (s *Server) listSchemas(w http.ResponseWriter, _ *http.Request) {
	type item struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		About      string `json:"about"`
		Path       string `json:"path"`
	}
	var items []item
	for _, k := range mesh.Kinds() {
		items = append(items, item{k.Name, k.APIVersion, k.About, "/v1/schemas/" + k.Name})
	}
	s.answer(w, http.StatusOK, map[string]any{"items": items})
}

func (s *Server) getSchema(w http.ResponseWriter, r *http.Request) {
	k, err := mesh.KindNamed(r.PathValue("kind"))
	if err != nil {
		s.problem(w, r, problem{Status: http.StatusNotFound, Title: "Unknown kind", Detail: err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/schema+json")
	s.answerAs(w, k.Schema())
}
