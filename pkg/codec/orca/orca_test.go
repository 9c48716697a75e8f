// SPDX-License-Identifier: Apache-2.0

package orca

import (
	"encoding/base64"
	"strings"
	"testing"

	orcav3 "github.com/cncf/xds/go/xds/data/orca/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

var wanted = []string{"named_metrics.queue", "utilization.disk", "mem_utilization"}

func parse(name, value string) (Report, bool) {
	var h codec.Header
	h.AddString(name, value)
	return Parse(&h, wanted)
}

func TestReportsAreReadInEveryForm(t *testing.T) {
	m := &orcav3.OrcaLoadReport{
		//lint:ignore SA1019 endpoints still send rps
		Rps:            7,
		CpuUtilization: .5, MemUtilization: .25, RpsFractional: 100.5, Eps: 2, ApplicationUtilization: 1.5,
		RequestCost: map[string]float64{"queue": 99}, Utilization: map[string]float64{"disk": .75, "net": 9},
		NamedMetrics: map[string]float64{"queue": .125, "": 1},
	}
	want := Report{RPS: 100.5, EPS: 2, CPU: .5, Mem: .25, Application: 1.5, Wanted: .75}
	wire, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	names, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	const text = "cpu_utilization=0.5, mem_utilization:0.25,rps_fractional=100.5,eps=2,application_utilization=1.5,utilization.disk=.75,named_metrics.queue=.125"
	for name, c := range map[string][2]string{
		"binary header":  {HeaderBinary, base64.StdEncoding.EncodeToString(wire)},
		"without pads":   {HeaderBinary, base64.RawStdEncoding.EncodeToString(wire)},
		"binary by name": {Header, "BIN " + base64.StdEncoding.EncodeToString(wire)},
		"JSON by name":   {Header, "JSON " + string(plain)},
		"JSON":           {HeaderJSON, strings.ReplaceAll(string(names), "\n", " ")},
		"text by name":   {Header, "TEXT " + text},
		"text":           {Header, text},
	} {
		if got, ok := parse(c[0], c[1]); !ok || got != want {
			t.Errorf("%s: got %+v %v, want %+v", name, got, ok, want)
		}
	}
	if _, ok := parse("x-other", text); ok {
		t.Error("a head without a report has one")
	}
}

func TestBrokenReportsAreNone(t *testing.T) {
	for _, c := range [][2]string{
		{Header, "cpu_utilization"},
		{Header, "cpu_utilization=NaN"},
		{Header, "cpu_utilization=+Inf"},
		{Header, "cpu_utilization=-1"},
		{Header, "unknown=1"},
		{Header, "named_metrics=1"},
		{Header, "cpu_utilization.a=1"},
		{Header, "eps=1," + strings.Repeat("eps=1,", 1000) + "eps=1"},
		{Header, "JSON {"},
		{Header, "JSON {}x"},
		{Header, `JSON {"eps":{"a":1}}`},
		{Header, `JSON {"named_metrics":1}`},
		{Header, `JSON {"eps":1e999}`},
		{Header, `JSON {"e\u0070s":1}`},
		{Header, `JSON {"eps":true}`},
		{Header, `JSON [1]`},
		{Header, "BIN !"},
		{HeaderBinary, base64.StdEncoding.EncodeToString([]byte{0x09, 1, 2})},
		{HeaderBinary, base64.StdEncoding.EncodeToString([]byte{0x42, 0x7f, 1})},
		{HeaderBinary, base64.StdEncoding.EncodeToString([]byte{0x0b})},
		{HeaderBinary, base64.StdEncoding.EncodeToString(make([]byte, 3000))},
	} {
		if got, ok := parse(c[0], c[1]); ok {
			t.Errorf("%s: %.40s is read as %+v", c[0], c[1], got)
		}
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	for name, value := range map[string]string{
		Header:       "TEXT rps_fractional=100.5,eps=2,application_utilization=1.5,named_metrics.queue=.125",
		HeaderJSON:   `{"rps_fractional": 100.5, "named_metrics": {"queue": 0.5}}`,
		HeaderBinary: "CQAAAAAAAOA/MQAAAAAAIFlAQhAKBXF1ZXVlEQAAAAAAAMA/",
	} {
		var h codec.Header
		h.AddString(name, value)
		if r, ok := Parse(&h, wanted); !ok || r.Wanted == 0 {
			t.Fatalf("%s: got %+v %v", name, r, ok)
		}
		if n := testing.AllocsPerRun(100, func() { Parse(&h, wanted) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

// Whatever is read is what protobuf reads, or nothing; and nothing crashes.
func FuzzReports(f *testing.F) {
	f.Add("CQAAAAAAAOA/MQAAAAAAIFlAQhAKBXF1ZXVlEQAAAAAAAMA/")
	f.Add(`{"rps_fractional": 100.5, "named_metrics": {"queue": 0.5}}`)
	f.Add("TEXT eps=2,named_metrics.queue=.125")
	f.Fuzz(func(t *testing.T, value string) {
		parse(Header, value)
		parse(HeaderJSON, value)
		got, ok := parse(HeaderBinary, value)
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		var m orcav3.OrcaLoadReport
		if !ok || err != nil || strings.ContainsAny(value, "\r\n") || proto.Unmarshal(b, &m) != nil {
			return
		}
		if want := max(m.GetRpsFractional(), 0); got.RPS != want {
			t.Errorf("%q: %v requests per second, protobuf reads %v", value, got.RPS, want)
		}
	})
}
