// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// propagator reads and writes one format of trace context.
type propagator struct {
	name    string
	header  codec.Name // which is there wherever the format is used with ids
	extract func(h *codec.RequestHead) parent
	inject  func(h *codec.RequestHead, t *record.Trace, flags byte)
}

// propagators are the formats by the names that configuration uses.
var propagators = []propagator{
	{"tracecontext", codec.NameTraceparent, extractW3C, injectW3C},
	{"b3", codec.NameB3, extractB3, injectB3},
	{"b3multi", codec.NameXB3TraceID, extractB3Multi, injectB3Multi},
}

// decision is what a caller said about sampling.
type decision uint8

const (
	deferred decision = iota // nothing said
	drop
	sample
	debug // sample, and say so downstream
)

// parent is what a format found in the headers of a request.
type parent struct {
	traceID  [16]byte
	spanID   [8]byte
	parentID [8]byte
	decision decision
	ids      bool // traceID and spanID are valid
	id128    bool
	w3c      bool // tracestate belongs to this context
	join     bool // a format in which a server may share the client's span id
	flags    byte // of traceparent
}

// found reports whether the format was there, with ids or a decision alone.
func (p *parent) found() bool { return p.ids || p.decision != deferred }
