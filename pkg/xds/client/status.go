// SPDX-License-Identifier: Apache-2.0

package client

import (
	"sort"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// Status is the state of a client at one moment.
type Status struct {
	Snapshot uint64 // version of the last published one; 0: none yet
	// FromLastGood says that the configuration in use is the copy from disk.
	FromLastGood bool
	// Held counts resources whose latest version waits for others.
	Held    int
	Waiting []string // what is waited for, such as `cluster "orders"`; at most 100
	Sources []SourceStatus
	Refused []Refused
	// Extensions are the filters that listeners name for ECDS.
	Extensions []ExtensionStatus
}

// SourceStatus is the state of one source.
type SourceStatus struct {
	Name      string // such as "ads xds_cluster"
	Connected bool
	Since     time.Time // of being connected or not
	LastError string
	Failures  int // to connect, since the last response
	// LastResponseBytes is the size of the last response's resources.
	LastResponseBytes int
	Types             []TypeStatus
	// Oversized counts responses that were larger than is accepted.
	Oversized uint64
}

// TypeStatus is the state of one type on a source.
type TypeStatus struct {
	Type       string // "cds"
	Version    string // accepted last
	Resources  int
	Accepted   uint64 // responses
	Rejected   uint64 // responses
	LastUpdate time.Time
	// LastNack is the reason of a NACK that nothing accepted has followed.
	LastNack   string
	LastNackAt time.Time
}

// Refused is a resource whose last version was refused.
type Refused struct {
	Type, Name, Reason string
	At                 time.Time
}

// Status reports the state. It may be called at any time by any goroutine, but
// not from Publish.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := Status{Held: c.asm.held, FromLastGood: c.cached, Extensions: c.asm.extensions.list()}
	if c.snapshot != nil {
		st.Snapshot = c.snapshot.Version
	}
	for n := range c.asm.waits {
		if len(st.Waiting) < 100 {
			st.Waiting = append(st.Waiting, n.String())
		}
	}
	sort.Strings(st.Waiting)
	for _, s := range c.sources {
		st.Sources = append(st.Sources, c.sourceStatus(s))
	}
	sort.Slice(st.Sources, func(i, j int) bool { return st.Sources[i].Name < st.Sources[j].Name })
	for k := range c.store.bad {
		for name, r := range c.store.bad[k] {
			st.Refused = append(st.Refused, Refused{Type: decode.TypeOf(decode.Kind(k)).Short, Name: name, Reason: r.reason, At: r.at})
		}
	}
	sort.Slice(st.Refused, func(i, j int) bool {
		a, b := &st.Refused[i], &st.Refused[j]
		return a.Type < b.Type || a.Type == b.Type && a.Name < b.Name
	})
	return st
}

// String is `cluster "orders"`.
func (n need) String() string {
	if n.name == "" {
		return n.kind.String() + "s"
	}
	return n.kind.String() + ` "` + n.name + `"`
}

func (c *Client) sourceStatus(s *source) SourceStatus {
	out := SourceStatus{
		Name: s.label(), Connected: s.connected, Since: s.since, LastError: s.lastError,
		Failures: s.failures, LastResponseBytes: s.bytes, Oversized: s.oversized,
	}
	for _, k := range s.stream.Subscribed() {
		st := &s.kinds[k]
		t := TypeStatus{
			Type: decode.TypeOf(k).Short, Version: s.stream.Version(k), Accepted: st.accepted, Rejected: st.rejected,
			LastUpdate: st.updated, LastNack: st.nack, LastNackAt: st.nackAt,
		}
		for _, e := range c.store.latest[k] {
			if e.source == s {
				t.Resources++
			}
		}
		out.Types = append(out.Types, t)
	}
	return out
}
