// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Kind says which side of which exchange a span describes.
type Kind string

// The kinds of Zipkin's version 2 model; a local span has none.
const (
	Client   Kind = "CLIENT"
	Server   Kind = "SERVER"
	Producer Kind = "PRODUCER"
	Consumer Kind = "CONSUMER"
)

// Span is one span in Zipkin's version 2 model, normalised: identifiers are
// lower-case hexadecimal of full length, names lower-case, tags and annotations
// sorted. The zero value of an optional field means that it is absent.
type Span struct {
	TraceID   string // 16 or 32 digits
	ID        string // 16 digits
	ParentID  string // 16 digits
	Kind      Kind
	Name      string
	Timestamp int64 // microseconds since the epoch
	Duration  int64 // microseconds
	Local     Endpoint
	Remote    Endpoint
	// Sorted by time, then value.
	Annotations []Annotation
	// Sorted by key, which is unique.
	Tags   []Tag
	Debug  bool
	Shared bool // the server reports under the client's span id
}

// Endpoint is one side of an exchange.
type Endpoint struct {
	ServiceName string
	IPv4, IPv6  netip.Addr
	Port        uint16
}

// Annotation is an event within a span.
type Annotation struct {
	Timestamp int64 // microseconds since the epoch
	Value     string
}

// Tag is a key and its value.
type Tag struct{ Key, Value string }

// Tag returns the value under key.
func (s *Span) Tag(key string) (string, bool) {
	i, found := slices.BinarySearchFunc(s.Tags, key, func(t Tag, key string) int { return cmp.Compare(t.Key, key) })
	if !found {
		return "", false
	}
	return s.Tags[i].Value, true
}

func (e *Endpoint) empty() bool {
	return e.ServiceName == "" && !e.IPv4.IsValid() && !e.IPv6.IsValid() && e.Port == 0
}

// spanOverheadBytes stands for the fixed part of a span: the struct, its slot in
// the trace, and what allocation rounds up.
const spanOverheadBytes = 384

// cost estimates the memory that the span holds, in bytes.
func (s *Span) cost() int {
	n := spanOverheadBytes + len(s.TraceID) + len(s.ID) + len(s.ParentID) + len(s.Name) +
		len(s.Local.ServiceName) + len(s.Remote.ServiceName)
	for _, t := range s.Tags {
		n += 32 + len(t.Key) + len(t.Value)
	}
	for _, a := range s.Annotations {
		n += 24 + len(a.Value)
	}
	return n
}

// equal tells a span that was delivered twice from two spans with one id.
func (s *Span) equal(o *Span) bool {
	return s.ID == o.ID && s.Kind == o.Kind && s.Shared == o.Shared && s.Timestamp == o.Timestamp &&
		s.Duration == o.Duration && s.ParentID == o.ParentID && s.Name == o.Name && s.Debug == o.Debug &&
		s.Local == o.Local && s.Remote == o.Remote &&
		slices.Equal(s.Tags, o.Tags) && slices.Equal(s.Annotations, o.Annotations)
}

// hexID checks an identifier and pads it with zeros on the left: to 16 digits,
// or to 32 when it is longer and long is set. An id of zeros is the empty string.
func hexID(id string, long bool) (string, bool) {
	limit := 16
	if long {
		limit = 32
	}
	if len(id) > limit {
		return "", false
	}
	zero := true
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
		zero = zero && c == '0'
	}
	if zero {
		return "", true
	}
	width := 16
	if len(id) > 16 {
		width = 32
	}
	return strings.Repeat("0", width-len(id)) + id, true
}
