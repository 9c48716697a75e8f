// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"cmp"
	"net/http"
	"strconv"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// instanceBody is what a registration sends.
type instanceBody struct {
	Address      string            `json:"address" rule:"required,maxlen=64" doc:"IP address that other sidecars connect to."`
	Port         uint16            `json:"port" rule:"required,min=1" doc:"Port on that address."`
	Protocol     string            `json:"protocol,omitempty" rule:"enum=http|http2|grpc|tcp|tls" doc:"http when empty; http2 and grpc take any request by HTTP/2."`
	Zone         string            `json:"zone,omitempty" rule:"maxlen=253" doc:"Zone of the instance."`
	Region       string            `json:"region,omitempty" rule:"maxlen=253" doc:"Region of the instance."`
	Weight       uint32            `json:"weight,omitempty" rule:"max=65535" doc:"Share of the traffic relative to the others; 1 when empty."`
	Version      string            `json:"version,omitempty" rule:"maxlen=253" doc:"Version that runs there."`
	Metadata     map[string]string `json:"metadata,omitempty" rule:"maxitems=64" doc:"Free entries, up to 8 KiB in all."`
	Health       mesh.Health       `json:"health,omitempty" doc:"Health as the instance knows it; unknown counts as healthy."`
	MutualTLS    bool              `json:"mutualTLS,omitempty" doc:"The instance takes mutual TLS, with the identity of its service."`
	LeaseSeconds uint32            `json:"leaseSeconds,omitempty" rule:"min=1,max=3600" doc:"The instance is taken out when no heartbeat comes for so long; 30 when empty."`
}

// healthBody is what a heartbeat may send, and a health change must.
type healthBody struct {
	Health mesh.Health `json:"health,omitempty" doc:"New health; unchanged when empty."`
}

// serviceView is a service in lists.
type serviceView struct {
	Name      string           `json:"name"`
	Declared  bool             `json:"declared"` // by a Service object
	Ports     []mesh.Port      `json:"ports,omitempty"`
	Instances int              `json:"instances"`
	Healthy   int              `json:"healthy"`
	Held      int              `json:"held,omitempty"` // kept by the shrink guard
	List      []*mesh.Instance `json:"list,omitempty"` // of a single service
}

func viewService(m *mesh.Model, name string) serviceView {
	svc := m.Services[name]
	v := serviceView{Name: name, Declared: !svc.Implicit, Ports: svc.Spec.Ports, Instances: len(m.Instances[name])}
	for _, i := range m.Instances[name] {
		if i.Routable() {
			v.Healthy++
		}
		if i.Held {
			v.Held++
		}
	}
	return v
}

func (s *Server) listServices(w http.ResponseWriter, r *http.Request) {
	after, limit, err := paging(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	m := s.state.Model()
	p := cut(m, m.ServiceNames(), func(n string) string { return n }, after, limit)
	views := page[serviceView]{Items: make([]serviceView, len(p.Items)), Continue: p.Continue, Model: p.Model}
	for i, n := range p.Items {
		views.Items[i] = viewService(m, n)
	}
	s.answer(w, http.StatusOK, views)
}

func (s *Server) getService(w http.ResponseWriter, r *http.Request) {
	m, name := s.state.Model(), r.PathValue("service")
	if m.Services[name] == nil {
		s.problem(w, r, problem{Status: http.StatusNotFound, Detail: "no service " + clip(name) + " is declared, and no instance of it has registered"})
		return
	}
	v := viewService(m, name)
	v.List = m.Instances[name]
	s.answer(w, http.StatusOK, v)
}

func (s *Server) listInstances(w http.ResponseWriter, r *http.Request) {
	after, limit, err := paging(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	m, name := s.state.Model(), r.PathValue("service")
	if m.Services[name] == nil {
		s.problem(w, r, problem{Status: http.StatusNotFound, Detail: "no service " + clip(name) + " is declared, and no instance of it has registered"})
		return
	}
	s.answer(w, http.StatusOK, cut(m, m.Instances[name], func(i *mesh.Instance) string { return i.ID }, after, limit))
}

func instanceKey(r *http.Request) mesh.InstanceKey {
	return mesh.InstanceKey{Service: r.PathValue("service"), ID: r.PathValue("id")}
}

func (s *Server) getInstance(w http.ResponseWriter, r *http.Request) {
	i := s.state.Model().Instance(instanceKey(r))
	if i == nil {
		s.problem(w, r, problem{Status: http.StatusNotFound, Detail: "no instance " + clip(r.PathValue("service")+"/"+r.PathValue("id")) + " is registered"})
		return
	}
	// Health changes without a revision, so there is no 304 here.
	setETag(w, i.Revision)
	s.answer(w, http.StatusOK, i)
}

// decode reads a body of one of our own structs.
func (s *Server) decode(w http.ResponseWriter, r *http.Request, v any) bool {
	if !jsonOrYAML(r) {
		s.problem(w, r, problem{Status: http.StatusUnsupportedMediaType, Detail: "send the body with Content-Type: application/json"})
		return false
	}
	data, err := body(r)
	if err == nil {
		err = mesh.DecodeInto(data, v)
	}
	if err != nil {
		s.fail(w, r, err)
		return false
	}
	return true
}

func (s *Server) putInstance(w http.ResponseWriter, r *http.Request) {
	match, err := precondition(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	var b instanceBody
	if !s.decode(w, r, &b) {
		return
	}
	k := instanceKey(r)
	match.KeepIdentity = true // of the sidecar that is there
	inst := mesh.Instance{
		Service: k.Service, ID: k.ID, Address: b.Address, Port: b.Port, Protocol: cmp.Or(b.Protocol, "http"), Zone: b.Zone, Region: b.Region,
		Weight: b.Weight, Version: b.Version, Metadata: b.Metadata, Health: b.Health, MutualTLS: b.MutualTLS,
	}
	revision, created, err := s.state.Registry().Register(r.Context(), inst, time.Duration(b.LeaseSeconds)*time.Second, match)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	inst.Revision = revision
	setETag(w, revision)
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		w.Header().Set("Location", r.URL.Path)
	}
	s.answer(w, status, &inst)
}

func (s *Server) heartbeat(w http.ResponseWriter, r *http.Request) {
	b := healthBody{}
	data, err := body(r)
	if err == nil && len(bytes.TrimSpace(data)) > 0 {
		err = mesh.DecodeInto(data, &b)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	lease, err := s.state.Registry().Renew(r.Context(), instanceKey(r), b.Health)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.answer(w, http.StatusOK, map[string]any{"leaseSeconds": lease.Seconds()})
}

func (s *Server) putHealth(w http.ResponseWriter, r *http.Request) {
	var b healthBody
	if !s.decode(w, r, &b) {
		return
	}
	if err := s.state.Registry().SetHealth(r.Context(), instanceKey(r), b.Health); err != nil {
		s.fail(w, r, err)
		return
	}
	s.answer(w, http.StatusOK, map[string]any{"health": b.Health})
}

func (s *Server) deleteInstance(w http.ResponseWriter, r *http.Request) {
	match, err := precondition(r)
	if err != nil {
		s.badRequest(w, r, err.Error())
		return
	}
	k := instanceKey(r)
	if i := s.state.Model().Instance(k); i != nil && i.Static {
		s.problem(w, r, problem{Status: http.StatusConflict, Title: "Listed by an object", Detail: "the address is listed by Service/" + k.Service + ": change it there"})
		return
	}
	revision, err := s.state.Registry().Deregister(r.Context(), k, match)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.answer(w, http.StatusOK, map[string]any{"deleted": k.Service + "/" + k.ID, "revision": revision})
}

func (s *Server) releaseHeld(w http.ResponseWriter, r *http.Request) {
	n, err := s.state.Registry().Release(r.Context(), r.PathValue("service"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Outrigger-Changed", strconv.FormatBool(n > 0))
	s.answer(w, http.StatusOK, map[string]any{"released": n})
}
