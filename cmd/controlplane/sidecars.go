// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/rest"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

// sidecars shows the xDS server's clients to the API.
type sidecars struct {
	control *controlplane.ControlPlane
	ejected func() []sidecarservice.Ejected
}

func (s sidecars) Sidecars() []rest.Sidecar {
	list := s.control.Server().Status()
	out := make([]rest.Sidecar, len(list))
	byNode := map[string][]rest.EjectedEndpoint{}
	for _, x := range s.ejected() {
		byNode[x.Node] = append(byNode[x.Node], ejectedOf(x))
	}
	for i, n := range list {
		out[i] = s.sidecarOf(n)
		out[i].Ejected = byNode[n.Node.ID]
	}
	return out
}

func (s sidecars) sidecarOf(n server.NodeStatus) rest.Sidecar {
	x := rest.Sidecar{
		Node: n.Node.ID, Service: n.Node.Text("service"), Zone: n.Node.Zone,
		Client:    strings.TrimSpace(n.Node.UserAgent + " " + n.Node.UserAgentVersion),
		Connected: n.Connected, Since: n.ConnectedSince, LeftAt: n.LeftAt, Remote: n.Remote, Protocol: n.Protocol, Synced: n.Synced(),
		Inbound: s.control.TLSMode(n.Node),
	}
	for _, t := range n.Types {
		y := rest.SidecarType{Type: t.Type, Groups: t.Groups, Names: t.Names, Latest: t.Latest, Accepted: t.Acked, Pending: t.Pending, Missing: t.Missing}
		for _, name := range slices.Sorted(maps.Keys(t.Rejected)) {
			r := t.Rejected[name]
			y.Rejected = append(y.Rejected, rest.Rejection{Resource: name, Version: r.Version, Reason: r.Reason, At: r.At})
		}
		if t.Nack != nil && len(y.Rejected) == 0 {
			y.Rejected = append(y.Rejected, rest.Rejection{Version: t.Nack.Version, Reason: t.Nack.Reason, At: t.Nack.At})
		}
		x.Types = append(x.Types, y)
	}
	for _, c := range n.Shared {
		x.Shared = append(x.Shared, rest.SharedNode(c))
	}
	return x
}

// nodeConfig is what one sidecar was given.
type nodeConfig struct {
	Sidecar   rest.Sidecar   `json:"sidecar"`
	Resources []nodeResource `json:"resources"`
}

// nodeResource is one resource as the sidecar has it. Content is in proto3 JSON.
type nodeResource struct {
	Type    string          `json:"type"`
	Name    string          `json:"name"`
	State   string          `json:"state"` // accepted, sent, pending, rejected, missing
	Sent    string          `json:"sent,omitempty"`
	Latest  string          `json:"latest,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Content json.RawMessage `json:"content,omitempty"`
}

func (s sidecars) SidecarConfig(node string) (any, bool) {
	n, known := s.control.Server().NodeStatus(node)
	list, _ := s.control.Server().NodeResources(node)
	sidecar := s.sidecarOf(n)
	for _, x := range s.ejected() {
		if x.Node == node {
			sidecar.Ejected = append(sidecar.Ejected, ejectedOf(x))
		}
	}
	c := nodeConfig{Sidecar: sidecar, Resources: make([]nodeResource, len(list))}
	for i, r := range list {
		x := nodeResource{Type: r.Type, Name: r.Name, State: r.State, Sent: r.Sent, Latest: r.Latest, Reason: r.Reason}
		if r.Content != nil {
			content, err := protojson.Marshal(r.Content)
			if err != nil {
				x.Reason = "content cannot be shown: " + err.Error()
			}
			x.Content = content
		}
		c.Resources[i] = x
	}
	return c, known
}

// explainer asks the builder where a request would go.
type explainer struct {
	control *controlplane.ControlPlane
	state   *store.State
	ejected func() []sidecarservice.Ejected
}

func (e explainer) Explain(_ context.Context, q rest.ExplainQuery) (rest.Explanation, error) {
	m := e.state.Model()
	sender := controlplane.Sender{Group: controlplane.GroupOfService(q.Service)}
	known := q.Service == "" || m.Services[q.Service] != nil
	switch {
	case q.From != "":
		if sender, known = e.control.SenderNamed(m, q.From); !known {
			return rest.Explanation{}, fmt.Errorf("%w: %q; want a service, SERVICE/INSTANCE, a node id, or an instance id that one service alone has", rest.ErrUnknownNode, q.From)
		}
	case q.Node != "":
		if sender.Group, known = e.control.GroupOfNode(q.Node); !known {
			return rest.Explanation{}, fmt.Errorf("%w: %q is not and was not connected", rest.ErrUnknownNode, q.Node)
		}
	case !known:
		return rest.Explanation{}, fmt.Errorf("%w: %q", rest.ErrUnknownNode, q.Service)
	}
	x := controlplane.Explain(m, sender.Group, controlplane.Query{Method: q.Method, URL: q.URL, Headers: q.Headers, At: time.Now()})
	out := rest.Explanation{Outcome: x.Outcome, Result: string(x.Result), Routed: x.Routed, Steps: steps(x.Steps), Endpoints: steps(x.Endpoints), Hints: x.Hints}
	e.addEjections(out.Endpoints)
	if sender.How != "" {
		out.Steps = append([]rest.ExplainStep{{Stage: "sender", Name: sender.Name, Reason: sender.How}}, out.Steps...)
	}
	return out, nil
}

func steps(list []controlplane.Step) []rest.ExplainStep {
	out := make([]rest.ExplainStep, len(list))
	for i, s := range list {
		out[i] = rest.ExplainStep(s)
	}
	return out
}

// check builds what an object would become before it is stored.
func check(m *mesh.Model, o mesh.Object) error { return controlplane.Check(m, o, time.Now()) }

// onProblem makes an event of what could not be built, and of its end.
func (p *plane) onProblem(b controlplane.BuildProblem, cleared bool) {
	e := store.Event{Type: store.EventRejected, Kind: store.KindResource, Name: b.Resource, Message: b.Error()}
	switch {
	case cleared:
		e.Type, e.Message = store.EventRestored, "it can be built again"
		p.log.Info("resource can be built again", "resource", b.Resource, "group", b.Group)
	case b.Object != "": // the resource is made all the same
		p.log.Warn("resource is built, and something of an object is not in it", "resource", b.Resource, "group", b.Group, "problem", b.Error())
	default:
		e.Message += "; what was published before stays"
		p.log.Error("resource cannot be built, the one before stays", "resource", b.Resource, "group", b.Group, "problem", b.Error())
	}
	p.state.Note(e)
}

// onLabels makes an event of labels that no instance has, and of their end.
func (p *plane) onLabels(f mesh.LabelFault, cleared bool) {
	e := store.Event{Type: store.EventWarning, Kind: f.Object.Kind, Name: f.Object.Name, Message: f.Warning()}
	if cleared {
		e.Type, e.Message = store.EventRestored, "it is over: "+e.Message
	} else {
		p.log.Warn("labels that no instance has", "object", f.Object.String(), "warning", f.Warning())
	}
	p.state.Note(e)
}

// onClient makes events of sidecars that come, go, and refuse.
func (p *plane) onClient(e server.Event) {
	out := store.Event{Time: e.At, Kind: store.KindSidecar, Name: e.Node, Message: e.Reason}
	switch e.Kind {
	case server.EventConnected:
		out.Type = store.EventConnected
	case server.EventDisconnected:
		out.Type = store.EventDisconnected
	case server.EventShared:
		out.Type = store.EventShared
		p.log.Warn("several sidecars have one node id", "node", e.Node, "remote", e.Names, "reason", e.Reason)
	case server.EventNack:
		out.Type = store.EventRefused
		out.Message = shortType(e.Type) + " " + strings.Join(e.Names, ", ") + ": " + e.Reason
		p.log.Warn("sidecar refuses configuration", "node", e.Node, "type", shortType(e.Type), "resources", e.Names, "reason", e.Reason)
	default:
		p.log.Warn("xds", "event", e.Kind, "node", e.Node, "type", shortType(e.Type), "bytes", e.Bytes, "reason", e.Reason)
		return
	}
	p.state.Note(out)
}

func (p *plane) writeMetrics(w io.Writer) {
	b := p.control.BuildStatus()
	gauge := func(name, kind, help string, v any) {
		fmt.Fprintf(w, "# HELP outrigger_controlplane_%s %s\n# TYPE outrigger_controlplane_%s %s\noutrigger_controlplane_%s %v\n", name, help, name, kind, name, v)
	}
	gauge("builds_total", "counter", "Times that resources were built.", b.Builds)
	gauge("build_groups", "gauge", "Groups of sidecars that resources are built for.", b.Groups)
	gauge("build_problems", "gauge", "Resources that could not be built.", len(b.Problems))
	gauge("build_seconds", "gauge", "How long the last build took.", b.Took.Seconds())
	l := p.lake.Stats()
	gauge("lake_records_total", "counter", "Tapped exchanges stored in the lake.", l.Records)
	gauge("lake_refused_batches_total", "counter", "Batches of tapped exchanges that could not be stored.", l.Refused)
	gauge("lake_files_total", "counter", "Parquet files written.", l.Files)
	gauge("lake_log_bytes", "gauge", "Bytes of tapped exchanges that wait to be files.", l.LogBytes)
	x := p.spans.Stats()
	gauge("spans_accepted_total", "counter", "Spans kept when they came.", x.Accepted)
	gauge("spans_refused_total", "counter", "Spans that were not understood.", x.Refused)
	gauge("spans_dropped_total", "counter", "Spans beyond the limit of their trace.", x.Dropped)
}
