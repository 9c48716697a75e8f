// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"net"
	"slices"
	"time"
)

// Two clients with one node id are both served: which of them is the right one nobody
// knows. But they are told of, because what is known of one is shown as the other's.
//
// Several streams are no proof. A client that does not aggregate has one for each type,
// one that connects anew leaves its last one behind until pings find it dead, and the
// successor of a process that is replaced is there before that has gone. So the streams
// must differ in where they come from or in what their clients listen at, and both must
// be alive: the older one by a request since the other is there, or both by being there
// for SharedAfter.

// Claimant is one of several clients that have a node id at once.
type Claimant struct {
	Remote  string    `json:"remote"`
	Since   time.Time `json:"since,omitzero"`
	Service string    `json:"service,omitempty"`
	Inbound string    `json:"inbound,omitempty"` // where it listens
}

// claim is what clients of one id differ in. The zero value is nobody's.
type claim struct {
	host  string
	about uint64 // of what it says of itself
}

// maxSharedPairs bounds what is kept of a node, and how often it is told of.
const maxSharedPairs = 16

var claimSeed = maphash.MakeSeed()

// claimOf is that of a stream; the zero value where nobody can tell: of polls.
func claimOf(st *stream, n *Node) claim {
	if st.remote == "" {
		return claim{}
	}
	host, _, err := net.SplitHostPort(st.remote)
	if err != nil {
		host = st.remote // of a Unix socket
	}
	// Not the version: the successor of a process has another one, and all else alike.
	about := fmt.Sprintf("%q", []string{n.Cluster, n.Text("service"), n.Text("inbound"), n.Text("outbound"), n.Text("app")})
	return claim{host, maphash.String(claimSeed, about)}
}

// rival reports whether two streams are of different clients.
func (st *stream) rival(other *stream) bool {
	return st.claim != claim{} && other.claim != claim{} && st.claim != other.claim
}

// settled reports whether there is no more to be told of two streams: an id that a whole
// fleet has is not looked into with each request.
func (st *stream) settled(other *stream) bool {
	return st.shared && other.shared && len(st.node.told) >= maxSharedPairs
}

// watchShared looks again at a stream that is not the first of its node, when those that
// are dead must have gone.
func (s *Server) watchShared(st *stream) {
	for _, other := range st.node.streams {
		if !st.rival(other) {
			continue
		}
		s.timers.at(st.since.Add(s.cfg.SharedAfter), func(now time.Time) {
			for _, other := range st.node.streams {
				if !st.closed && !other.closed && !st.settled(other) && st.rival(other) {
					s.share(other, st, now)
				}
			}
		})
		return
	}
}

// heard takes notice of a request: its client is alive, beside those that have joined
// since.
func (s *Server) heard(st *stream) {
	if len(st.node.streams) < 2 {
		return
	}
	for _, newer := range st.node.streams {
		if newer.joined > st.joined && !st.settled(newer) && st.rival(newer) {
			s.share(st, newer, s.cfg.Clock())
		}
	}
}

// share notes that two clients have one id, and tells of it once.
func (s *Server) share(a, b *stream, now time.Time) {
	rec := a.node
	a.shared, b.shared = true, true
	pair := [2]claim{a.claim, b.claim}
	slices.SortFunc(pair[:], func(x, y claim) int { return cmp.Or(cmp.Compare(x.host, y.host), cmp.Compare(x.about, y.about)) })
	if slices.Contains(rec.told, pair) || len(rec.told) >= maxSharedPairs {
		return
	}
	told := s.notify(Event{
		Kind: EventShared, Node: rec.ID, Names: []string{a.remote, b.remote}, At: now,
		Reason: fmt.Sprintf("%s and %s are connected with this node id at once, and each may be taken for the other: give every sidecar its own --id (or --service-node)", a.remote, b.remote),
	})
	if told {
		rec.told = append(rec.told, pair)
	}
}

// claimants are the clients that have the node's id now, if there are several: as many of
// them as are told of.
func (rec *nodeRecord) claimants() []Claimant {
	var out []Claimant
	var seen []claim
	for _, st := range rec.streams {
		if len(out) == maxSharedPairs {
			break
		}
		if st.shared && !slices.Contains(seen, st.claim) {
			seen = append(seen, st.claim)
			out = append(out, st.claimant)
		}
	}
	if len(out) < 2 {
		return nil
	}
	return out
}
