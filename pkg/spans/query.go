// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Query selects traces. The zero value of a field leaves it out.
type Query struct {
	ServiceName       string
	RemoteServiceName string
	SpanName          string
	// Annotations holds what a span of the service must carry: a key with an empty
	// value is an annotation or the mere presence of a tag.
	Annotations              map[string]string
	MinDuration, MaxDuration time.Duration
	// End and Lookback bound when the trace began.
	End      time.Time
	Lookback time.Duration
	Limit    int
}

// Services lists the services that reported spans, sorted.
func (s *Store) Services() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.services))
}

// SpanNames lists the names of a service's spans, sorted.
func (s *Store) SpanNames(serviceName string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if svc := s.services[serviceName]; svc != nil {
		return slices.Sorted(maps.Keys(svc.names))
	}
	return nil
}

// RemoteServices lists the services that a service exchanged with, sorted.
func (s *Store) RemoteServices(serviceName string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if svc := s.services[serviceName]; svc != nil {
		return slices.Sorted(maps.Keys(svc.remotes))
	}
	return nil
}

// AutocompleteKeys lists the tags whose values can be asked for, sorted.
func (s *Store) AutocompleteKeys() []string { return s.autocomplete }

// AutocompleteValues lists the values of such a tag, sorted.
func (s *Store) AutocompleteValues(key string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.values[key]))
}

// Trace returns the spans of a trace in the order they arrived, nil when it is
// not known. The id is matched in full.
func (s *Store) Trace(id string) []*Span {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.traces[id]; t != nil {
		return slices.Clone(t.spans)
	}
	return nil
}

// Traces returns the traces that match, the latest first.
func (s *Store) Traces(q Query) [][]*Span {
	type found struct {
		began int64
		spans []*Span
	}
	var hits []found
	s.mu.RLock()
	for _, t := range s.traces {
		began := t.began()
		if began == 0 || !q.within(began) || !q.matches(t.spans) {
			continue
		}
		hits = append(hits, found{began, slices.Clone(t.spans)})
	}
	s.mu.RUnlock()
	slices.SortFunc(hits, func(a, b found) int {
		return cmp.Or(cmp.Compare(b.began, a.began), cmp.Compare(a.spans[0].TraceID, b.spans[0].TraceID))
	})
	if q.Limit > 0 && len(hits) > q.Limit {
		hits = hits[:q.Limit]
	}
	out := make([][]*Span, len(hits))
	for i, h := range hits {
		out[i] = h.spans
	}
	return out
}

// began is the root's timestamp, or the first of all while the root is missing.
func (t *trace) began() int64 {
	var first int64
	for _, s := range t.spans {
		switch {
		case s.Timestamp == 0:
		case s.ParentID == "":
			return s.Timestamp
		case first == 0 || s.Timestamp < first:
			first = s.Timestamp
		}
	}
	return first
}

func (q *Query) within(began int64) bool {
	if q.End.IsZero() {
		return true
	}
	end := q.End.UnixMicro()
	return began <= end && (q.Lookback <= 0 || began >= end-q.Lookback.Microseconds())
}

// matches says whether the spans together satisfy every part of the query; with a
// service name, only that service's spans count.
func (q *Query) matches(list []*Span) bool {
	service, remote, name := q.ServiceName == "", q.RemoteServiceName == "", q.SpanName == ""
	duration := q.MinDuration <= 0
	missing := make(map[string]struct{}, len(q.Annotations))
	for k := range q.Annotations {
		missing[k] = struct{}{}
	}
	for _, s := range list {
		if q.ServiceName != "" && s.Local.ServiceName != q.ServiceName {
			continue
		}
		service = true
		remote = remote || s.Remote.ServiceName == q.RemoteServiceName
		name = name || s.Name == q.SpanName
		d := time.Duration(s.Duration) * time.Microsecond
		duration = duration || d >= q.MinDuration && (q.MaxDuration <= 0 || d <= q.MaxDuration)
		for k := range missing {
			if carries(s, k, q.Annotations[k]) {
				delete(missing, k)
			}
		}
	}
	return service && remote && name && duration && len(missing) == 0
}

func carries(s *Span, key, value string) bool {
	if v, ok := s.Tag(key); ok && (value == "" || v == value) {
		return true
	}
	return value == "" && slices.ContainsFunc(s.Annotations, func(a Annotation) bool { return a.Value == key })
}
