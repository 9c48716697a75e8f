// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"cmp"
	"slices"
	"time"
)

// Link counts the calls from one service to another.
type Link struct {
	Parent     string `json:"parent"`
	Child      string `json:"child"`
	CallCount  int64  `json:"callCount"`
	ErrorCount int64  `json:"errorCount,omitempty"`
}

// Links counts the calls between services in the traces that began within
// lookback before end, sorted by parent and child.
func (s *Store) Links(end time.Time, lookback time.Duration) []Link {
	q := Query{End: end, Lookback: lookback}
	counts := make(map[[2]string]*Link)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.traces {
		if began := t.began(); began != 0 && q.within(began) {
			newTree(t.spans).link(counts)
		}
	}
	out := make([]Link, 0, len(counts))
	for _, l := range counts {
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b Link) int {
		return cmp.Or(cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.Child, b.Child))
	})
	return out
}

// tree finds the parents of a trace's spans. With a shared id the client's half
// of a span is the parent of the server's.
type tree struct {
	spans  []*Span
	client map[string]*Span // by id: what is not the server's half of a shared span
	server map[string]*Span // by id: the server's half
}

func newTree(spans []*Span) *tree {
	t := &tree{spans: spans, client: make(map[string]*Span), server: make(map[string]*Span)}
	for _, s := range spans {
		if s.Shared && s.Kind == Server {
			t.server[s.ID] = s
		} else {
			t.client[s.ID] = s
		}
	}
	return t
}

func (t *tree) parent(s *Span) *Span {
	if s.Shared && s.Kind == Server {
		if c := t.client[s.ID]; c != nil {
			return c
		}
	}
	if s.ParentID == "" {
		return nil
	}
	// A span below a shared id was made by the server's side of it.
	if p := t.server[s.ParentID]; p != nil {
		return p
	}
	return t.client[s.ParentID]
}

// caller is the nearest ancestor that stands for an exchange. Depth is bounded,
// since ids come from outside and may form a circle.
func (t *tree) caller(s *Span) *Span {
	for range len(t.spans) {
		if s = t.parent(s); s == nil || s.Kind != "" {
			return s
		}
	}
	return nil
}

func (t *tree) link(counts map[[2]string]*Link) {
	// A call seen from both sides is counted once, on the server's side, which
	// knows its own name.
	answered := make(map[*Span]bool)
	for _, s := range t.spans {
		if s.Kind == Server {
			if c := t.caller(s); c != nil && c.Kind == Client {
				answered[c] = true
			}
		}
	}
	for _, s := range t.spans {
		parent, child := t.ends(s, answered)
		if parent == "" || child == "" {
			continue
		}
		key := [2]string{parent, child}
		l := counts[key]
		if l == nil {
			l = &Link{Parent: parent, Child: child}
			counts[key] = l
		}
		l.CallCount++
		if _, failed := s.Tag("error"); failed {
			l.ErrorCount++
		}
	}
}

// ends names the two sides of the call that s stands for, empty when it stands
// for none or another span counts for it.
func (t *tree) ends(s *Span, answered map[*Span]bool) (parent, child string) {
	local, remote := s.Local.ServiceName, s.Remote.ServiceName
	switch s.Kind {
	case Client:
		if answered[s] {
			return "", ""
		}
		return local, remote
	case Server:
		if c := t.caller(s); c != nil && c.Kind == Client && c.Local.ServiceName != "" {
			return c.Local.ServiceName, local
		}
		return remote, local
	case Producer:
		return local, remote // the broker
	case Consumer:
		return remote, local
	default:
		// A local span that names both sides is how some reporters write a client.
		if local != "" && remote != "" && local != remote {
			return local, remote
		}
		return "", ""
	}
}
