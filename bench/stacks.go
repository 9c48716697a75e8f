// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/pprof/profile"
)

// stacks are CPU samples of several profiles.
type stacks struct {
	merged *profile.Profile // nil: none yet
}

// add takes the samples of a CPU profile as package runtime/pprof writes it, and
// returns how many there were.
func (s *stacks) add(text []byte) (samples int64, err error) {
	p, err := profile.ParseData(text)
	if err != nil {
		return 0, fmt.Errorf("CPU profile: %w", err)
	}
	if len(p.SampleType) == 0 || *p.SampleType[0] != (profile.ValueType{Type: "samples", Unit: "count"}) {
		return 0, errors.New("CPU profile: it is a profile of something else")
	}
	for _, x := range p.Sample {
		samples += x.Value[0]
	}
	strip(p)
	all := []*profile.Profile{p}
	if s.merged != nil {
		all = append(all, s.merged)
	}
	s.merged, err = profile.Merge(all)
	return samples, err
}

// strip leaves of a profile what guides a build: functions, lines and counts. The
// compiler finds a call again by its function's name and its line's distance from the
// function's start; paths and addresses mean nothing to it, and would say where the
// profile was taken.
func strip(p *profile.Profile) {
	p.SampleType = p.SampleType[:1]
	p.DefaultSampleType, p.Comments, p.DocURL = "", nil, ""
	p.TimeNanos, p.DurationNanos, p.Period, p.PeriodType = 0, 0, 0, new(profile.ValueType)
	for _, x := range p.Sample {
		x.Value, x.Label, x.NumLabel, x.NumUnit = x.Value[:1], nil, nil, nil
	}
	for _, l := range p.Location {
		l.Mapping, l.Address = nil, 0
	}
	p.Mapping = nil
	for _, f := range p.Function {
		f.Filename, f.SystemName = "", ""
	}
}

// encode writes all that was taken, compressed.
func (s *stacks) encode() ([]byte, error) {
	var out bytes.Buffer
	err := s.merged.Write(&out)
	return out.Bytes(), err
}
