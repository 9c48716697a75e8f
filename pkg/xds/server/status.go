// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
)

// NodeStatus is what is known of one xDS client.
type NodeStatus struct {
	Node           Node         `json:"node"`
	Connected      bool         `json:"connected"`
	ConnectedSince time.Time    `json:"connectedSince,omitzero"`
	LeftAt         time.Time    `json:"leftAt,omitzero"`
	Remote         []string     `json:"remote,omitempty"`   // addresses of its streams
	Protocol       []string     `json:"protocol,omitempty"` // ads, delta-ads, xds, delta, rest
	Types          []TypeStatus `json:"types,omitempty"`
	// Shared are the clients that have its id at once, where there are several: what is
	// said of the node is of all of them.
	Shared []Claimant `json:"shared,omitempty"`
}

// Synced says whether the node has accepted the latest of all it asked for.
func (n NodeStatus) Synced() bool {
	return n.Connected && !slices.ContainsFunc(n.Types, func(t TypeStatus) bool {
		return t.Pending || t.Nack != nil || len(t.Rejected) > 0
	})
}

// TypeStatus is one subscription.
type TypeStatus struct {
	Type      string               `json:"type"` // URL
	Groups    []string             `json:"groups"`
	Wildcard  bool                 `json:"wildcard,omitempty"`
	Names     int                  `json:"names,omitempty"` // subscribed by name
	Latest    string               `json:"latest"`          // version that is published
	Sent      string               `json:"sent,omitempty"`
	SentAt    time.Time            `json:"sentAt,omitzero"`
	SentBytes int                  `json:"sentBytes,omitempty"`
	Acked     string               `json:"acked,omitempty"`
	AckedAt   time.Time            `json:"ackedAt,omitzero"`
	Pending   bool                 `json:"pending,omitempty"`  // not sent yet, or not acknowledged; never if nothing is wanted
	Building  bool                 `json:"building,omitempty"` // nothing was published for it yet
	Nack      *Nack                `json:"nack,omitempty"`     // the last answer was a refusal
	Rejected  map[string]Rejection `json:"rejected,omitempty"` // by resource
	Missing   []string             `json:"missing,omitempty"`  // asked for by name, and not there
}

// Nack is one refused response.
type Nack struct {
	Type      string    `json:"type"`
	Version   string    `json:"version"`
	Reason    string    `json:"reason"`
	Resources []string  `json:"resources,omitempty"`
	At        time.Time `json:"at"`
}

// Rejection is the refusal of one resource.
type Rejection struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
	Count   int       `json:"count"`
}

// ResourceState is one resource as one node has it.
type ResourceState struct {
	Type    string
	Name    string
	State   string     // accepted, sent, pending, rejected, missing
	Sent    string     // version
	Latest  string     // version
	Reason  string     // of a rejection
	Content *anypb.Any // nil of a secret
}

// EventKind names what happened to a client.
type EventKind string

// The kinds of events.
const (
	EventConnected    EventKind = "connected"
	EventDisconnected EventKind = "disconnected"
	EventNack         EventKind = "nack"
	EventOversize     EventKind = "oversize-response"
	EventShared       EventKind = "shared" // several clients have one node id; once for each two
)

// Event is something a user may want to see.
type Event struct {
	Kind   EventKind
	Node   string
	Type   string
	Names  []string
	Reason string
	Bytes  int
	At     time.Time
}

// Status lists the nodes that are connected, and those that were, sorted by id.
func (s *Server) Status() []NodeStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]NodeStatus, 0, len(s.nodes))
	for _, rec := range s.nodes {
		out = append(out, s.statusOf(rec))
	}
	slices.SortFunc(out, func(a, b NodeStatus) int { return cmp.Compare(a.Node.ID, b.Node.ID) })
	return out
}

// NodeStatus is the status of one node.
func (s *Server) NodeStatus(id string) (NodeStatus, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.nodes[id]
	if rec == nil {
		return NodeStatus{}, false
	}
	return s.statusOf(rec), true
}

func (s *Server) statusOf(rec *nodeRecord) NodeStatus {
	n := NodeStatus{Node: rec.Node, Connected: len(rec.streams) > 0, ConnectedSince: rec.since, LeftAt: rec.left, Shared: rec.claimants()}
	for _, st := range rec.streams {
		if st.remote != "" && !slices.Contains(n.Remote, st.remote) {
			n.Remote = append(n.Remote, st.remote)
		}
		if p := st.protocol(); !slices.Contains(n.Protocol, p) {
			n.Protocol = append(n.Protocol, p)
		}
		for _, u := range st.subs {
			if u != nil {
				n.Types = append(n.Types, u.status())
			}
		}
	}
	slices.SortStableFunc(n.Types, func(a, b TypeStatus) int { return cmp.Compare(rankOf(a.Type), rankOf(b.Type)) })
	return n
}

func (st *stream) protocol() string {
	switch {
	case st.key.id == 0:
		return "rest"
	case st.key.delta && st.typeURL == "":
		return "delta-ads"
	case st.key.delta:
		return "delta"
	case st.typeURL == "":
		return "ads"
	}
	return "xds"
}

func (u *subscription) status() TypeStatus {
	t := TypeStatus{
		Type: u.typeURL, Groups: u.groups(), Wildcard: u.wildcard,
		Latest: u.version(), Acked: u.acked, AckedAt: u.ackedAt, Nack: u.nack,
		Building: !u.published(),
		Pending:  !u.idle() && (!u.published() || u.behind() || len(u.outstanding) > 0),
		Rejected: maps.Clone(u.rejections),
	}
	if u.last != nil {
		t.Sent, t.SentAt, t.SentBytes = u.last.version, u.last.at, u.last.bytes
	}
	if u.attached { // else the names are being changed, this instant
		t.Names = len(u.names)
		for name := range u.names {
			if u.resource(name) == nil {
				t.Missing = append(t.Missing, name)
			}
		}
		slices.Sort(t.Missing)
	}
	return t
}

// idle says that the client wants nothing of the type any more. Not every client
// acknowledges what was under way to it when it unsubscribed.
func (u *subscription) idle() bool { return u.attached && !u.wildcard && len(u.names) == 0 }

// NodeResources lists what one node was sent or waits for, in type order and
// by name; false if the node is not known.
func (s *Server) NodeResources(id string) ([]ResourceState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.nodes[id]
	if rec == nil {
		return nil, false
	}
	var out []ResourceState
	for _, st := range rec.streams {
		for _, u := range st.subs {
			if u != nil {
				out = append(out, u.resourceStates()...)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b ResourceState) int { return cmp.Compare(rankOf(a.Type), rankOf(b.Type)) })
	return out, true
}

func (u *subscription) resourceStates() []ResourceState {
	names := map[string]struct{}{}
	for name := range u.known {
		names[name] = struct{}{}
	}
	if u.attached {
		for name := range u.names {
			names[name] = struct{}{}
		}
		if u.wildcard {
			for _, t := range u.sets {
				for name := range t.resources {
					names[name] = struct{}{}
				}
			}
		}
	}
	inFlight := map[string]struct{}{}
	for _, x := range u.outstanding {
		for name := range x.versions {
			inFlight[name] = struct{}{}
		}
	}
	out := make([]ResourceState, 0, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		x := ResourceState{Type: u.typeURL, Name: name, Sent: u.known[name]}
		r := u.resource(name)
		if r != nil {
			x.Latest, x.Content = r.Version(), r.Any()
			if u.typeURL == TypeSecret {
				x.Content = nil
			}
		}
		rejection, rejected := u.rejections[name]
		_, flying := inFlight[name]
		switch {
		case r == nil:
			x.State, x.Sent = "missing", ""
		case rejected:
			x.State, x.Reason = "rejected", rejection.Reason
		case x.Sent != x.Latest:
			x.State = "pending"
		case flying:
			x.State = "sent"
		default:
			x.State = "accepted"
		}
		out = append(out, x)
	}
	return out
}

// blamed answers which of the resources a refusal names; all of them if it
// names none.
func blamed(versions map[string]string, reason string) []string {
	var named, all []string
	for name := range versions {
		all = append(all, name)
		if names(reason, name) {
			named = append(named, name)
		}
	}
	if len(named) == 0 {
		named = all
	}
	slices.Sort(named)
	return named
}

// names reports whether text has the name as a whole: not as a part of a longer
// one, such as "pay" in "payments".
func names(text, name string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], name)
		if i < 0 || name == "" {
			return false
		}
		i += from
		end := i + len(name)
		if (i == 0 || !inName(text[i-1])) && (end == len(text) || !inName(text[end])) {
			return true
		}
		from = i + 1
	}
}

// inName reports whether a resource name may go on with c. A full stop and a colon
// are left out: they end sentences more often.
func inName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '|' || c == '/'
}

// clip bounds text that a client chose.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxReason {
		return strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
