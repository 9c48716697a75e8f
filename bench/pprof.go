// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of github.com/google/pprof/proto/profile.proto that are used here.
const (
	profileSampleType protowire.Number = 1
	profileSample     protowire.Number = 2
	profileLocation   protowire.Number = 4
	profileFunction   protowire.Number = 5
	profileString     protowire.Number = 6
	valueType         protowire.Number = 1
	valueUnit         protowire.Number = 2
	sampleLocation    protowire.Number = 1
	sampleValue       protowire.Number = 2
	locationID        protowire.Number = 1
	locationLine      protowire.Number = 4
	lineFunction      protowire.Number = 1
	lineNumber        protowire.Number = 2
	functionID        protowire.Number = 1
	functionName      protowire.Number = 2
	functionStart     protowire.Number = 5
)

// parsedProfile is what of a profile makes its stacks.
type parsedProfile struct {
	samples   []parsedSample
	locations map[uint64][]parsedLine
	functions map[uint64]parsedFunction
	strings   []string
}

type parsedSample struct{ locations, values []uint64 }

type parsedLine struct {
	function uint64
	line     int64
}

type parsedFunction struct {
	name  uint64
	start int64
}

func parseProfile(b []byte) (*parsedProfile, error) {
	p := &parsedProfile{locations: map[uint64][]parsedLine{}, functions: map[uint64]parsedFunction{}}
	var types []uint64
	err := eachField(b, func(n protowire.Number, v uint64, sub []byte) (err error) {
		switch n {
		case profileSampleType:
			err = eachField(sub, func(n protowire.Number, v uint64, _ []byte) error {
				if n == valueType {
					types = append(types, v)
				}
				return nil
			})
		case profileSample:
			var x parsedSample
			err = eachField(sub, func(n protowire.Number, v uint64, packed []byte) (err error) {
				switch n {
				case sampleLocation:
					x.locations, err = appendNumbers(x.locations, v, packed)
				case sampleValue:
					x.values, err = appendNumbers(x.values, v, packed)
				}
				return err
			})
			p.samples = append(p.samples, x)
		case profileLocation:
			err = p.addLocation(sub)
		case profileFunction:
			var id uint64
			var f parsedFunction
			err = eachField(sub, func(n protowire.Number, v uint64, _ []byte) error {
				switch n {
				case functionID:
					id = v
				case functionName:
					f.name = v
				case functionStart:
					f.start = int64(v)
				}
				return nil
			})
			p.functions[id] = f
		case profileString:
			p.strings = append(p.strings, string(sub))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return p, p.check(types)
}

func (p *parsedProfile) addLocation(b []byte) error {
	var id uint64
	var lines []parsedLine
	err := eachField(b, func(n protowire.Number, v uint64, sub []byte) error {
		switch n {
		case locationID:
			id = v
		case locationLine:
			var l parsedLine
			err := eachField(sub, func(n protowire.Number, v uint64, _ []byte) error {
				switch n {
				case lineFunction:
					l.function = v
				case lineNumber:
					l.line = int64(v)
				}
				return nil
			})
			lines = append(lines, l)
			return err
		}
		return nil
	})
	p.locations[id] = lines
	return err
}

// check sees that the first value is a count of CPU samples, and that nothing is
// named that is not there.
func (p *parsedProfile) check(types []uint64) error {
	if len(types) == 0 || types[0] >= uint64(len(p.strings)) || p.strings[types[0]] != "samples" {
		return errors.New("its first value is no count of samples: it is no CPU profile")
	}
	for _, f := range p.functions {
		if f.name >= uint64(len(p.strings)) {
			return fmt.Errorf("names string %d of %d", f.name, len(p.strings))
		}
	}
	for _, lines := range p.locations {
		for _, l := range lines {
			if _, ok := p.functions[l.function]; !ok {
				return fmt.Errorf("names function %d, which is not there", l.function)
			}
		}
	}
	for _, x := range p.samples {
		for _, l := range x.locations {
			if _, ok := p.locations[l]; !ok {
				return fmt.Errorf("names location %d, which is not there", l)
			}
		}
	}
	return nil
}

// eachField calls f for every field of a message that is a number or has a length.
func eachField(b []byte, f func(n protowire.Number, v uint64, sub []byte) error) error {
	for len(b) > 0 {
		n, kind, length := protowire.ConsumeTag(b)
		if length < 0 {
			return protowire.ParseError(length)
		}
		b = b[length:]
		var v uint64
		var sub []byte
		switch kind {
		case protowire.VarintType:
			v, length = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			sub, length = protowire.ConsumeBytes(b)
		default:
			length = protowire.ConsumeFieldValue(n, kind, b)
		}
		if length < 0 {
			return protowire.ParseError(length)
		}
		if err := f(n, v, sub); err != nil {
			return err
		}
		b = b[length:]
	}
	return nil
}

// appendNumbers reads a repeated number, which may be packed.
func appendNumbers(to []uint64, v uint64, packed []byte) ([]uint64, error) {
	if packed == nil {
		return append(to, v), nil
	}
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return to, protowire.ParseError(n)
		}
		to, packed = append(to, v), packed[n:]
	}
	return to, nil
}

func appendNumber(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func appendMessage(b []byte, n protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), bytes.Join(parts, nil))
}
