// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const million = 1_000_000

// Options are what Compile needs beside the resource.
type Options struct {
	// Direction of the listener: Outbound makes CLIENT spans, all others SERVER.
	Direction resource.Direction
	// Service is the name spans carry where the tracer names none.
	Service string
	// Node goes into spans as the tag node_id; "" for none.
	Node string
	// Runtime resolves a percentage that has a runtime key, to parts of a
	// million. Nil: the default in the resource counts.
	Runtime func(resource.Percent) uint32
	// FirstCapture is the index in the record's captures of the first header of
	// CaptureHeaders: record.FixedCaptures and the access log's captures before it.
	FirstCapture int
	// Exporter opens a destination. Nil: spans go nowhere.
	Exporter func(e resource.TraceExporter, service string) (Exporter, error)
}

// Exporter takes finished spans. Export must not block and must not keep s or
// what it points to.
type Exporter interface {
	Export(s *Span)
}

// Plan is how one connection manager traces. Start is for loops and may be
// called on all of them at once; Consume is for the record's reader.
type Plan struct {
	// Set once.
	client, shared, id128         bool
	verbose                       bool
	random, clientForced, overall uint32 // parts of a million
	randomRatio                   uint64 // threshold of TraceIDRatio
	formats                       []format
	service, node                 string
	maxPathTag                    int
	tags                          []resource.TracingTag
	captureHeaders                []string
	tagCapture                    []int // by tag: index of its header's capture, or -1
	exporters                     []Exporter

	mu   sync.Mutex // guards span
	span Span       // scratch of Consume
}

// format is a propagator as a plan uses it.
type format struct {
	propagator
	echo bool // written only in place of what came
}

// Compile makes a plan. All errors of the resource are collected; each names its
// field.
func Compile(t *resource.Tracing, o Options) (*Plan, error) {
	p := &Plan{
		client: o.Direction == resource.Outbound, service: o.Service, node: o.Node,
		maxPathTag: t.MaxPathTag, tags: t.Tags, verbose: t.Verbose,
	}
	if p.maxPathTag <= 0 {
		p.maxPathTag = 256
	}
	percent := func(v resource.Percent) uint32 {
		if v.RuntimeKey != "" && o.Runtime != nil {
			return min(o.Runtime(v), million)
		}
		return min(v.PerMillion, million)
	}
	p.clientForced = percent(t.ClientSampling)
	p.random = percent(t.RandomSampling)
	p.overall = percent(t.OverallSampling)
	p.randomRatio = ratioThreshold(float64(p.random) / million)
	p.compileTags(o.FirstCapture)
	if t.Provider == nil {
		return p, nil // decides and marks the request id; carries no context
	}
	return p, p.compileProvider(t.Provider, o)
}

func (p *Plan) compileTags(first int) {
	if first == 0 {
		first = record.FixedCaptures
	}
	for i := range p.tags {
		at := -1
		if h := p.tags[i].Header; h != "" {
			at = first + len(p.captureHeaders)
			for j, name := range p.captureHeaders {
				if name == h {
					at = first + j
				}
			}
			if at == first+len(p.captureHeaders) {
				p.captureHeaders = append(p.captureHeaders, h)
			}
		}
		p.tagCapture = append(p.tagCapture, at)
	}
}

func (p *Plan) compileProvider(t *resource.Tracer, o Options) error {
	var errs []error
	p.id128, p.shared = t.TraceID128, t.SharedSpan
	if t.ServiceName != "" {
		p.service = t.ServiceName
	}
	for i, name := range t.Propagation {
		f, ok := lookupPropagator(name)
		if !ok {
			errs = append(errs, fmt.Errorf("tracing.provider.propagation[%d]: unknown format %q (known: tracecontext, b3, b3multi)", i, name))
			continue
		}
		p.formats = append(p.formats, format{f, slices.Contains(t.Echo, name)})
	}
	for i, e := range t.Exporters {
		if o.Exporter == nil {
			break
		}
		x, err := o.Exporter(e, p.service)
		if err != nil {
			errs = append(errs, fmt.Errorf("tracing.provider.exporters[%d]: %w", i, err))
			continue
		}
		p.exporters = append(p.exporters, x)
	}
	return errors.Join(errs...)
}

func lookupPropagator(name string) (propagator, bool) {
	for _, f := range propagators {
		if f.name == name {
			return f, true
		}
	}
	return propagator{}, false
}

// CaptureHeaders are the request headers, in lower case, that custom tags want
// captured, in this order from Options.FirstCapture on.
func (p *Plan) CaptureHeaders() []string { return p.captureHeaders }

// Start begins the span of an exchange, on the loop: it reads the caller's
// context from h, fills t, and writes the context of the new span to h. The
// request id, if one is to be there, must be in h already: the decision is read
// from and kept in it. Internal says that the request came from inside the mesh,
// so that x-envoy-force-trace counts. Ids come from rnd, which belongs to the
// loop.
//
// A caller's decision is followed. Where there is none, the request id's is,
// then client_sampling of requests with x-client-trace-id, force, and random
// sampling; overall_sampling caps what was decided here.
func (p *Plan) Start(h *codec.RequestHead, t *record.Trace, rnd rand.Source, internal bool) {
	var from parent
	for i := range p.formats {
		if from = p.formats[i].extract(h); from.found() {
			break
		}
	}
	*t = record.Trace{Client: p.client}
	if from.ids {
		t.TraceID, t.ID128 = from.traceID, from.id128
	} else {
		t.ID128 = p.id128
		newTraceID(&t.TraceID, rnd, p.id128)
	}
	if from.ids && from.join && p.shared && !p.client {
		t.SpanID, t.ParentID, t.Shared = from.spanID, from.parentID, true
	} else {
		putRandom((*[8]byte)(t.SpanID[:]), rnd)
		if from.ids {
			t.ParentID = from.spanID
		}
	}
	p.decide(h, t, from.decision, internal)
	for i := range p.formats {
		if f := &p.formats[i]; !f.echo || h.HasKnown(f.header) {
			f.inject(h, t, from.flags)
		}
	}
	if !from.w3c && len(p.formats) > 0 {
		// It speaks of another trace than the one that goes on.
		h.RemoveKnown(codec.NameTracestate)
	}
}

// decide sets t.Sampled, and keeps a decision made here in the request id.
func (p *Plan) decide(h *codec.RequestHead, t *record.Trace, d decision, internal bool) {
	id := h.Known(codec.NameXRequestID)
	number, hasNumber := requestIDNumber(id)
	had := RequestIDReason(id)
	reason := had
	switch {
	case d == drop:
		return
	case d == sample || d == debug:
		t.Sampled, t.Debug = true, d == debug
		if hasNumber && had == NotTraceable {
			setReason(h, id, Sampled)
		}
		return
	case had != NotTraceable:
	case h.HasKnown(codec.NameXClientTraceID) && p.passes(p.clientForced, number, hasNumber, t):
		reason = ClientForced
	case internal && h.HasKnown(codec.NameXEnvoyForceTrace):
		reason = ServiceForced
	case p.random > 0 && p.sampled(number, hasNumber, t):
		reason = Sampled
	}
	if reason != NotTraceable && !p.passes(p.overall, number, hasNumber, t) {
		reason = NotTraceable
	}
	t.Sampled = reason != NotTraceable
	if reason != had && hasNumber {
		setReason(h, id, reason)
	}
}

// sampled is random sampling: by the request id, as Envoy does, and without one
// by the trace id, as OpenTelemetry's ratio sampler does.
func (p *Plan) sampled(number uint32, hasNumber bool, t *record.Trace) bool {
	if hasNumber {
		return number%million < p.random
	}
	return p.random >= million || ratioValue(&t.TraceID) < p.randomRatio
}

func (p *Plan) passes(limit, number uint32, hasNumber bool, t *record.Trace) bool {
	if limit >= million {
		return true
	}
	if !hasNumber {
		number = uint32(ratioValue(&t.TraceID) % million)
	}
	return number%million < limit
}

func setReason(h *codec.RequestHead, id []byte, r Reason) {
	var b [RequestIDLen]byte
	copy(b[:], id)
	b[reasonDigit] = reasonDigits[r]
	h.SetKnown(codec.NameXRequestID, b[:])
}
