// SPDX-License-Identifier: Apache-2.0

// Package orca reads the load reports that endpoints put into the heads or trailers
// of their answers (Open Request Cost Aggregation): as text, as JSON or as a message
// of protobuf in base64. It keeps the few numbers that balancing goes by, allocates
// nothing, and takes what an endpoint says for what it is, input of a peer: sizes are
// bounded, and a report with any fault is none.
//
// What follows from a report is pkg/lb's business.
//
// Sources: xds.data.orca.v3.OrcaLoadReport; Envoy, source/common/orca; gRFC A51, A64.
package orca

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// Report is what one answer tells of its endpoint.
type Report struct {
	RPS         float64 // requests per second, rps_fractional
	EPS         float64 // errors per second
	CPU         float64 // utilizations; 1 is all there is, and it may be more
	Mem         float64
	Application float64
	// Wanted is the greatest of the metrics that were asked for by name.
	Wanted float64
}

// Names of the headers.
const (
	Header       = "endpoint-load-metrics" // "TEXT …", "JSON …", "BIN …"; text where it says nothing
	HeaderBinary = "endpoint-load-metrics-bin"
	HeaderJSON   = "endpoint-load-metrics-json"
)

const (
	maxBytes   = 4096 // of a header's value
	maxMessage = 2048 // of a message, decoded
)

// Parse reads the report of a head or of trailers; false if there is none, or none
// that can be read. The wanted metrics are named as Envoy names them: a field, or
// the name of a field that is a map with a dot and a key.
func Parse(h *codec.Header, wanted []string) (Report, bool) {
	p := parser{wanted: wanted}
	var ok bool
	if b := h.Get(HeaderBinary); len(b) > 0 {
		ok = p.binary(b)
	} else if b := h.Get(Header); len(b) > 0 {
		switch {
		case bytes.HasPrefix(b, binPrefix):
			ok = p.binary(b[len(binPrefix):])
		case bytes.HasPrefix(b, jsonPrefix):
			ok = p.json(b[len(jsonPrefix):])
		default:
			ok = p.text(bytes.TrimPrefix(b, textPrefix))
		}
	} else if b := h.Get(HeaderJSON); len(b) > 0 {
		ok = p.json(b)
	}
	return p.report, ok
}

var binPrefix, jsonPrefix, textPrefix = []byte("BIN "), []byte("JSON "), []byte("TEXT ")

// field is a field of the message.
type field uint8

const (
	fieldCPU         field = 1
	fieldMem         field = 2
	fieldRequestCost field = 4
	fieldUtilization field = 5
	fieldRPS         field = 6
	fieldEPS         field = 7
	fieldNamed       field = 8
	fieldApplication field = 9
)

var fields = []struct {
	number      field
	name, camel string
}{
	{fieldCPU, "cpu_utilization", "cpuUtilization"},
	{fieldMem, "mem_utilization", "memUtilization"},
	{fieldRequestCost, "request_cost", "requestCost"},
	{fieldUtilization, "utilization", "utilization"},
	{fieldRPS, "rps_fractional", "rpsFractional"},
	{fieldEPS, "eps", "eps"},
	{fieldNamed, "named_metrics", "namedMetrics"},
	{fieldApplication, "application_utilization", "applicationUtilization"},
}

type parser struct {
	report Report
	wanted []string
}

// set takes a field's value, or with a key that of a map's entry.
func (p *parser) set(f field, key []byte, v float64) bool {
	if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return false
	}
	r := &p.report
	if key == nil {
		switch f {
		case fieldCPU:
			r.CPU = v
		case fieldMem:
			r.Mem = v
		case fieldRPS:
			r.RPS = v
		case fieldEPS:
			r.EPS = v
		case fieldApplication:
			r.Application = v
		}
	}
	if p.wants(f, key) {
		r.Wanted = max(r.Wanted, v)
	}
	return true
}

func (p *parser) wants(f field, key []byte) bool {
	name := ""
	for i := range fields {
		if fields[i].number == f {
			name = fields[i].name
		}
	}
	for _, w := range p.wanted {
		switch {
		case key == nil && w == name:
			return true
		case key != nil && len(w) == len(name)+1+len(key) && w[:len(name)] == name && w[len(name)] == '.' && w[len(name)+1:] == string(key):
			return true
		}
	}
	return false
}

// text reads "cpu_utilization=0.3, named_metrics.queue=4"; colons do, too.
func (p *parser) text(b []byte) bool {
	if len(b) > maxBytes {
		return false
	}
	for len(b) > 0 {
		var entry []byte
		entry, b, _ = bytes.Cut(b, comma)
		i := bytes.IndexAny(entry, ":=")
		if i < 0 {
			return false
		}
		v, err := strconv.ParseFloat(string(bytes.TrimSpace(entry[i+1:])), 64)
		f, key, ok := fieldOf(bytes.TrimSpace(entry[:i]))
		if err != nil || !ok || !p.set(f, key, v) {
			return false
		}
	}
	return true
}

var comma, dot = []byte(","), []byte(".")

// fieldOf finds a field by its name in text, which has the key of a map's entry
// behind a dot.
func fieldOf(name []byte) (f field, key []byte, ok bool) {
	name, key, entry := bytes.Cut(name, dot)
	if !entry {
		key = nil
	}
	for i := range fields {
		if string(name) == fields[i].name || string(name) == fields[i].camel {
			return fields[i].number, key, entry == fields[i].number.isMap()
		}
	}
	return 0, nil, false
}

func (f field) isMap() bool { return f == fieldRequestCost || f == fieldUtilization || f == fieldNamed }

// binary reads a message in base64, with padding or without.
func (p *parser) binary(b []byte) bool {
	if len(b) > maxBytes {
		return false
	}
	var m [maxMessage]byte
	b = bytes.TrimRight(b, "=")
	if base64.RawStdEncoding.DecodedLen(len(b)) > len(m) {
		return false
	}
	n, err := base64.RawStdEncoding.Decode(m[:], b)
	return err == nil && p.message(m[:n])
}

// message reads the wire format; fields that are not known are skipped.
func (p *parser) message(b []byte) bool {
	for len(b) > 0 {
		f, typ, v, rest, ok := wireField(b)
		if !ok {
			return false
		}
		b = rest
		switch {
		case typ == wireBytes && f.isMap():
			if !p.entry(f, v) {
				return false
			}
		case typ == wireFixed64 && !f.isMap():
			if !p.set(f, nil, math.Float64frombits(binary.LittleEndian.Uint64(v))) {
				return false
			}
		}
	}
	return true
}

// entry reads one of a map.
func (p *parser) entry(f field, b []byte) bool {
	key, value := []byte{}, 0.0
	for len(b) > 0 {
		n, typ, v, rest, ok := wireField(b)
		if !ok {
			return false
		}
		b = rest
		switch {
		case n == 1 && typ == wireBytes:
			key = v
		case n == 2 && typ == wireFixed64:
			value = math.Float64frombits(binary.LittleEndian.Uint64(v))
		}
	}
	return p.set(f, key, value)
}

const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// wireField cuts off the first field; numbers that do not fit are given as 0, which
// no field has.
func wireField(b []byte) (f field, typ int, value, rest []byte, ok bool) {
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag>>3 == 0 {
		return 0, 0, nil, nil, false
	}
	b, typ = b[n:], int(tag&7)
	if tag>>3 < 256 {
		f = field(tag >> 3)
	}
	size := 0
	switch typ {
	case wireVarint:
		if _, size = binary.Uvarint(b); size <= 0 {
			return 0, 0, nil, nil, false
		}
	case wireFixed64:
		size = 8
	case wireFixed32:
		size = 4
	case wireBytes:
		l, n := binary.Uvarint(b)
		if n <= 0 || l > uint64(len(b)-n) {
			return 0, 0, nil, nil, false
		}
		b, size = b[n:], int(l)
	default:
		return 0, 0, nil, nil, false
	}
	if size > len(b) {
		return 0, 0, nil, nil, false
	}
	return f, typ, b[:size], b[size:], true
}
