// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
)

// cpuProfile is one of two functions, with all that tells of the machine.
func cpuProfile(t *testing.T) []byte {
	t.Helper()
	m := &profile.Mapping{ID: 1, File: "/home/somebody/sidecar", Limit: 1 << 30}
	read := &profile.Function{ID: 1, Name: "read", SystemName: "read", Filename: "/home/somebody/loop.go", StartLine: 10}
	loop := &profile.Function{ID: 2, Name: "loop", SystemName: "loop", Filename: "/home/somebody/loop.go", StartLine: 40}
	inner := &profile.Location{ID: 1, Mapping: m, Address: 0x1000, Line: []profile.Line{{Function: read, Line: 15}}}
	outer := &profile.Location{ID: 2, Mapping: m, Address: 0x2000, Line: []profile.Line{{Function: loop, Line: 42}}}
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		Sample: []*profile.Sample{
			{Location: []*profile.Location{inner, outer}, Value: []int64{3, 30}},
			{Location: []*profile.Location{outer}, Value: []int64{4, 40}},
		},
		Location: []*profile.Location{inner, outer}, Function: []*profile.Function{read, loop}, Mapping: []*profile.Mapping{m},
		TimeNanos: 12345, Comments: []string{"of somebody"},
	}
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestProfilesAreMergedAndTellNothingOfTheMachine(t *testing.T) {
	var s stacks
	for range 2 {
		if n, err := s.add(cpuProfile(t)); n != 7 || err != nil {
			t.Fatalf("got %d samples, %v", n, err)
		}
	}
	counts := map[string]int64{}
	for _, x := range s.merged.Sample {
		var stack []string
		for _, l := range x.Location {
			for _, line := range l.Line {
				stack = append(stack, line.Function.Name+strings.Repeat("+", int(line.Line-line.Function.StartLine)))
			}
		}
		counts[strings.Join(stack, ", ")] += x.Value[0]
	}
	if len(counts) != 2 || counts["read+++++, loop++"] != 6 || counts["loop++"] != 8 {
		t.Errorf("got %v", counts)
	}
	text, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := new(stacks).add(text); n != 14 || err != nil {
		t.Errorf("read again: %d samples, %v", n, err)
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(z); err != nil || bytes.Contains(plain, []byte("somebody")) {
		t.Errorf("it tells of the machine, %v", err)
	}
}

func TestWhatIsNoCPUProfileIsRefused(t *testing.T) {
	whole := cpuProfile(t)
	var heap bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&heap, 0); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{
		"text": []byte("profiling is off"), "cut off": whole[:len(whole)-20], "empty": nil, "heap": heap.Bytes(),
	} {
		var s stacks
		if _, err := s.add(in); err == nil || !strings.HasPrefix(err.Error(), "CPU profile: ") || s.merged != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
