// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Node is what an xDS client says of itself.
type Node struct {
	ID               string         `json:"id"`
	Cluster          string         `json:"cluster,omitempty"`
	UserAgent        string         `json:"userAgent,omitempty"`
	UserAgentVersion string         `json:"userAgentVersion,omitempty"`
	Region           string         `json:"region,omitempty"`
	Zone             string         `json:"zone,omitempty"`
	SubZone          string         `json:"subZone,omitempty"`
	Metadata         map[string]any `json:"metadata,omitempty"`
}

// Text is the metadata field of that name, if it is a string.
func (n Node) Text(field string) string {
	s, _ := n.Metadata[field].(string)
	return s
}

func nodeOf(n *corev3.Node) Node {
	return Node{
		ID: n.GetId(), Cluster: n.GetCluster(),
		UserAgent: n.GetUserAgentName(), UserAgentVersion: versionOfAgent(n),
		Region: n.GetLocality().GetRegion(), Zone: n.GetLocality().GetZone(), SubZone: n.GetLocality().GetSubZone(),
		Metadata: n.GetMetadata().AsMap(),
	}
}

func versionOfAgent(n *corev3.Node) string {
	if v := n.GetUserAgentVersion(); v != "" {
		return v
	}
	v := n.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return ""
	}
	return strings.Join([]string{itoa(v.GetMajorNumber()), itoa(v.GetMinorNumber()), itoa(v.GetPatch())}, ".")
}

// nodeRecord is a node with its streams; it outlives them for a while so that
// the status can tell who left.
type nodeRecord struct {
	Node
	streams []*stream
	since   time.Time  // connected since; zero when it is not
	left    time.Time  // when its last stream ended
	told    [][2]claim // clients that have had the id at once
}

// join adds a stream to its node.
func (s *Server) join(st *stream, n Node) {
	rec := s.nodes[n.ID]
	if rec == nil {
		rec = &nodeRecord{}
		s.nodes[n.ID] = rec
	}
	rec.Node = n
	if len(rec.streams) == 0 {
		rec.since, rec.left = st.since, time.Time{}
		s.notify(Event{Kind: EventConnected, Node: n.ID, At: st.since})
	}
	rec.streams = append(rec.streams, st)
	st.node = rec
	s.joins++
	st.joined, st.claim = s.joins, claimOf(st, &n)
	st.claimant = Claimant{Remote: st.remote, Since: st.since, Service: cmp.Or(n.Text("service"), n.Cluster), Inbound: n.Text("inbound")}
	s.watchShared(st)
}

// leave takes a stream from its node, and forgets those who left longest ago.
func (s *Server) leave(st *stream, now time.Time) {
	rec := st.node
	rec.streams = slices.DeleteFunc(rec.streams, func(x *stream) bool { return x == st })
	if len(rec.streams) > 0 {
		return
	}
	rec.since, rec.left = time.Time{}, now
	s.notify(Event{Kind: EventDisconnected, Node: rec.ID, At: now})
	s.gone = append(s.gone, departure{rec.ID, now})
	for len(s.gone) > s.cfg.MaxGone || len(s.gone) > 0 && now.Sub(s.gone[0].at) > s.cfg.KeepGone {
		d := s.gone[0]
		s.gone = s.gone[1:]
		if old := s.nodes[d.id]; old != nil && old.left.Equal(d.at) {
			delete(s.nodes, d.id)
		}
	}
}

// departure is a node that left; it may be back since.
type departure struct {
	id string
	at time.Time
}
