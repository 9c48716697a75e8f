// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// Span is a finished span. It and all it points to are valid until Export
// returns.
type Span struct {
	record.Trace
	Name          []byte
	Start         int64 // unix nanoseconds
	Duration      int64 // nanoseconds, at least 1000
	Service       string
	RemoteService string // the upstream of a CLIENT span, "" where unknown
	Local         netip.AddrPort
	Remote        netip.AddrPort
	Error         bool
	Status        uint16
	Tags          []Tag

	text []byte // what was made for this span
}

// maxTagBytes bounds one value, and with it what a queue of spans can take.
const maxTagBytes = 1024

// Tag is a key and a value of a span.
type Tag struct {
	Key   string
	Value []byte
}

// Consume makes a span of a sampled exchange and hands it to the exporters.
func (p *Plan) Consume(r *record.Record) {
	if !r.Trace.Sampled || len(p.exporters) == 0 || r.Kind != record.HTTPExchange {
		return
	}
	p.mu.Lock()
	s := &p.span
	p.fill(s, r)
	for _, x := range p.exporters {
		x.Export(s)
	}
	p.mu.Unlock()
}

func (p *Plan) fill(s *Span, r *record.Record) {
	*s = Span{
		Trace: r.Trace, Start: r.Start, Duration: max(r.End, 1000), Service: p.service, Status: r.Status,
		Local: r.Local, Remote: r.Remote, Tags: s.Tags[:0], text: s.text[:0], Name: s.Name[:0],
	}
	// A span without response is one that somebody gave up on.
	s.Error = r.Status >= 500 || r.Status == 0
	if r.Trace.Client {
		// Cluster names carry their direction before the service: "outbound|orders".
		s.RemoteService = r.Cluster[strings.LastIndexByte(r.Cluster, '|')+1:]
		s.Local, s.Remote = r.UpstreamLocal, r.UpstreamAddr
	}
	p.name(s, r)
	p.standardTags(s, r)
	for i := range p.tags {
		p.customTag(s, r, i)
	}
}

// name is the decorator's operation, else "METHOD route", with the name of the
// route and not the path: there are few of them, and a backend can group by it.
// What has no route is named by its method alone.
func (p *Plan) name(s *Span, r *record.Record) {
	if r.Operation != "" {
		s.Name = append(s.Name, r.Operation...)
		return
	}
	method, _ := r.Capture(record.CaptureMethod)
	s.Name = append(s.Name, method...)
	if r.Route != "" {
		s.Name = append(append(s.Name, ' '), r.Route...)
	}
}

func (p *Plan) standardTags(s *Span, r *record.Record) {
	s.tag("component", "proxy")
	if p.node != "" {
		s.tag("node_id", p.node)
	}
	if v, ok := r.Capture(record.CaptureRequestID); ok {
		s.tagBytes("guid:x-request-id", v)
	}
	if v, ok := r.Capture(record.CaptureMethod); ok {
		s.tagBytes("http.method", v)
	}
	p.url(s, r)
	s.tag("http.protocol", r.Protocol.String())
	if v, ok := r.Capture(record.CaptureUserAgent); ok {
		s.tagBytes("user_agent", v)
	}
	if r.DirectRemote.IsValid() {
		s.made("peer.address", r.DirectRemote.Addr().AppendTo(s.text))
	}
	s.made("request_size", strconv.AppendUint(s.text, r.BytesReceived, 10))
	s.made("response_size", strconv.AppendUint(s.text, r.BytesSent, 10))
	s.made("http.status_code", strconv.AppendUint(s.text, uint64(r.Status), 10))
	s.made("response_flags", r.Flags.AppendShort(s.text))
	if r.Cluster != "" {
		s.tag("upstream_cluster", r.Cluster)
	}
	if r.UpstreamAddr.IsValid() {
		s.made("upstream_address", r.UpstreamAddr.AppendTo(s.text))
	}
	if r.Attempts > 1 {
		s.made("retry.count", strconv.AppendUint(s.text, uint64(r.Attempts-1), 10))
	}
	if s.Error {
		s.tag("error", "true")
	}
}

// url has no query: it may hold secrets, and a trace travels far.
func (p *Plan) url(s *Span, r *record.Record) {
	path, ok := r.Capture(record.CapturePath)
	if !ok {
		return
	}
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	host, _ := r.Capture(record.CaptureAuthority)
	at := len(s.text)
	s.text = append(s.text, "http://"...)
	s.text = append(s.text, host...)
	s.text = append(s.text, path[:min(len(path), p.maxPathTag)]...)
	s.tagBytes("http.url", s.text[at:])
}

func (p *Plan) customTag(s *Span, r *record.Record, i int) {
	t := &p.tags[i]
	if t.Header == "" {
		s.tag(t.Name, t.Literal)
		return
	}
	if v, ok := r.Capture(p.tagCapture[i]); ok {
		s.tagBytes(t.Name, v)
	} else if t.Default != "" {
		s.tag(t.Name, t.Default)
	}
}

// tag copies the value into the span's text: bytes and strings alike then live
// as long as the span. Growth leaves earlier values in the old array.
func (s *Span) tag(key, value string) {
	at := len(s.text)
	s.text = append(s.text, value...)
	s.tagBytes(key, s.text[at:])
}

func (s *Span) tagBytes(key string, value []byte) {
	value = value[:min(len(value), maxTagBytes)]
	s.Tags = append(s.Tags, Tag{Key: key, Value: value[:len(value):len(value)]})
}

// made takes s.text with a value appended.
func (s *Span) made(key string, text []byte) {
	at := len(s.text)
	s.text = text
	s.tagBytes(key, s.text[at:])
}

var _ record.Consumer = (*Plan)(nil)
