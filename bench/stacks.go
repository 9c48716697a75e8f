// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// frame is a line of a function. The compiler finds calls again by the function's name
// and the line's distance from its start; files and addresses mean nothing to it.
type frame struct {
	function    string
	start, line int64
}

// stacks are CPU samples counted by their stack: what a profile that guides a build
// has to say, without paths of the machine that it was taken on.
type stacks struct {
	frames table[frame]
	// places are what pprof calls locations: a line and those that its function is
	// inlined at, the innermost first, as varints of frames. The compiler looks at calls
	// within the innermost place and from the next one to it.
	places table[string]
	counts map[string]int64 // samples, by varints of places, the innermost first
}

func newStacks() *stacks { return &stacks{counts: map[string]int64{}} }

// add counts the samples of a CPU profile as package runtime/pprof writes it, and
// returns how many there were.
func (s *stacks) add(profile []byte) (samples int64, err error) {
	z, err := gzip.NewReader(bytes.NewReader(profile))
	if err != nil {
		return 0, fmt.Errorf("CPU profile: %w", err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return 0, fmt.Errorf("CPU profile: %w", err)
	}
	p, err := parseProfile(text)
	if err != nil {
		return 0, fmt.Errorf("CPU profile: %w", err)
	}
	for _, x := range p.samples {
		if len(x.values) == 0 {
			continue
		}
		var stack []byte
		for _, l := range x.locations {
			var place []byte
			for _, line := range p.locations[l] {
				f := p.functions[line.function]
				place = protowire.AppendVarint(place, s.frames.id(frame{function: p.strings[f.name], start: f.start, line: line.line}))
			}
			stack = protowire.AppendVarint(stack, s.places.id(string(place)))
		}
		s.counts[string(stack)] += int64(x.values[0])
		samples += int64(x.values[0])
	}
	return samples, nil
}

// encode writes the stacks as a profile of one value, the count of samples, always
// the same for the same stacks.
func (s *stacks) encode() []byte {
	var out []byte
	var texts table[string]
	text := func(b []byte, n protowire.Number, v string) []byte { return appendNumber(b, n, texts.id(v)) } // 0 is ""
	out = appendMessage(out, profileSampleType, text(nil, valueType, "samples"), text(nil, valueUnit, "count"))
	keys := slices.SortedFunc(maps.Keys(s.counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.counts[b], s.counts[a]), cmp.Compare(a, b))
	})
	for _, stack := range keys {
		out = appendMessage(out, profileSample,
			appendMessage(nil, sampleLocation, []byte(stack)),
			appendMessage(nil, sampleValue, protowire.AppendVarint(nil, uint64(s.counts[stack]))))
	}
	var functions table[frame]
	for i, place := range s.places.values {
		location := appendNumber(nil, locationID, uint64(i+1))
		for _, id := range varints(place) {
			f := s.frames.values[id-1]
			function := functions.id(frame{function: f.function, start: f.start})
			location = appendMessage(location, locationLine, appendNumber(appendNumber(nil, lineFunction, function), lineNumber, uint64(f.line)))
		}
		out = appendMessage(out, profileLocation, location)
	}
	for i, f := range functions.values {
		out = appendMessage(out, profileFunction, appendNumber(nil, functionID, uint64(i+1)),
			text(nil, functionName, f.function), appendNumber(nil, functionStart, uint64(f.start)))
	}
	out = appendMessage(out, profileString)
	for _, v := range texts.values {
		out = appendMessage(out, profileString, []byte(v))
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // fails on a level that there is not
	_, _ = z.Write(out)                                        // a buffer takes all
	_ = z.Close()
	return packed.Bytes()
}

// varints reads what protowire.AppendVarint has written.
func varints(text string) (out []uint64) {
	for rest := []byte(text); len(rest) > 0; {
		v, n := protowire.ConsumeVarint(rest)
		out, rest = append(out, v), rest[n:]
	}
	return out
}

// table numbers values from 1 in the order of their first use.
type table[T comparable] struct {
	ids    map[T]uint64
	values []T
}

func (t *table[T]) id(v T) uint64 {
	id, known := t.ids[v]
	if !known {
		if t.ids == nil {
			t.ids = map[T]uint64{}
		}
		t.values = append(t.values, v)
		id = uint64(len(t.values))
		t.ids[v] = id
	}
	return id
}
