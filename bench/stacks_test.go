// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// cpuProfile is one of three functions, read being inlined into serve, as package
// runtime/pprof writes it but for the list of locations, which may be packed or not.
func cpuProfile(t *testing.T, packed bool, mistake func(number protowire.Number, field []byte) []byte) []byte {
	t.Helper()
	var out []byte
	put := func(n protowire.Number, parts ...[]byte) {
		field := bytes.Join(parts, nil)
		if mistake != nil {
			field = mistake(n, field)
		}
		out = appendMessage(out, n, field)
	}
	n := appendNumber
	put(profileSampleType, n(n(nil, valueType, 1), valueUnit, 2))
	put(profileSampleType, n(n(nil, valueType, 3), valueUnit, 4))
	sample := func(count uint64, locations ...uint64) {
		var field, all []byte
		for _, l := range locations {
			field, all = n(field, sampleLocation, l), protowire.AppendVarint(all, l)
		}
		if packed {
			field = appendMessage(nil, sampleLocation, all)
		}
		values := protowire.AppendVarint(protowire.AppendVarint(nil, count), count*10_000_000)
		put(profileSample, field, appendMessage(nil, sampleValue, values))
	}
	sample(3, 11, 12)
	sample(4, 12)
	sample(5, 13, 12) // another address of the same place
	const address, filename = 3, 4
	line := func(function, line uint64) []byte {
		return appendMessage(nil, locationLine, n(n(nil, lineFunction, function), lineNumber, line))
	}
	put(profileLocation, n(n(nil, locationID, 11), address, 0x1000), line(1, 15), line(2, 31))
	put(profileLocation, n(n(nil, locationID, 13), address, 0x1008), line(1, 15), line(2, 31))
	put(profileLocation, n(n(nil, locationID, 12), address, 0x2000), line(3, 42))
	for i, start := range []uint64{10, 30, 40} {
		id := uint64(i + 1)
		put(profileFunction, n(n(n(n(nil, functionID, id), functionName, 5+id), filename, 5), functionStart, start))
	}
	for _, text := range []string{"", "samples", "count", "cpu", "nanoseconds", "/home/somebody/loop.go", "read", "serve", "loop"} {
		put(profileString, []byte(text))
	}
	return zipped(out)
}

func zipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b)
	_ = z.Close()
	return out.Bytes()
}

// unfold writes stacks by their places.
func (s *stacks) unfold() map[string]int64 {
	out := map[string]int64{}
	for key, count := range s.counts {
		var stack []string
		for _, id := range varints(key) {
			var place []string
			for _, id := range varints(s.places.values[id-1]) {
				f := s.frames.values[id-1]
				place = append(place, f.function+strings.Repeat("+", int(f.line-f.start)))
			}
			stack = append(stack, strings.Join(place, " in "))
		}
		out[strings.Join(stack, ", ")] += count
	}
	return out
}

func TestProfilesAreMergedByPlaceAndNothingElseIsKept(t *testing.T) {
	s := newStacks()
	for _, packed := range []bool{true, false} {
		if n, err := s.add(cpuProfile(t, packed, nil)); n != 12 || err != nil {
			t.Errorf("packed is %t: got %d samples, %v", packed, n, err)
		}
	}
	want := map[string]int64{"read+++++ in serve+, loop++": 16, "loop++": 8}
	if d := cmp.Diff(want, s.unfold()); d != "" {
		t.Error(d)
	}
	text := s.encode()
	if !bytes.Equal(text, s.encode()) {
		t.Error("the same stacks are written in two ways")
	}
	again := newStacks()
	if n, err := again.add(text); n != 24 || err != nil {
		t.Errorf("got %d samples, %v", n, err)
	}
	if d := cmp.Diff(want, again.unfold()); d != "" {
		t.Error(d)
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(z); err != nil || bytes.Contains(plain, []byte("somebody")) {
		t.Errorf("a path of the machine is in it, %v", err)
	}
}

func TestWhatIsNoCPUProfileIsRefused(t *testing.T) {
	whole := cpuProfile(t, true, nil)
	var heap bytes.Buffer
	if err := pprof.Lookup("heap").WriteTo(&heap, 0); err != nil {
		t.Fatal(err)
	}
	// lose leaves the last field of a kind out, which others name.
	lose := func(lost protowire.Number, has string) []byte {
		return cpuProfile(t, true, func(n protowire.Number, field []byte) []byte {
			if n == lost && bytes.Contains(field, []byte(has)) {
				return nil
			}
			return field
		})
	}
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"text":        {[]byte("profiling is off"), "gzip: invalid header"},
		"cut off":     {whole[:len(whole)-20], "unexpected EOF"},
		"empty":       {zipped(nil), "it is no CPU profile"},
		"no message":  {zipped([]byte{0xff}), "unexpected EOF"},
		"heap":        {heap.Bytes(), "it is no CPU profile"},
		"no function": {lose(profileFunction, "\x08\x02"), "names function 2, which is not there"},
		"no location": {lose(profileLocation, "\x08\x0c"), "names location 12, which is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStacks()
			if _, err := s.add(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if len(s.counts) != 0 {
				t.Errorf("samples of it are counted: %v", s.counts)
			}
		})
	}
}
