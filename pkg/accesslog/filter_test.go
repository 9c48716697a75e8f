// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"regexp"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestFiltersSelect(t *testing.T) {
	status := func(op resource.Comparison, v uint32) *resource.LogFilter {
		return &resource.LogFilter{Kind: resource.FilterStatus, Op: op, Value: v}
	}
	header := func(m resource.HeaderMatch) *resource.LogFilter {
		return &resource.LogFilter{Kind: resource.FilterHeader, Header: &m}
	}
	exact := func(name, v string) resource.HeaderMatch {
		return resource.HeaderMatch{Name: name, Kind: resource.HeaderString, String: resource.StringMatch{Value: v}}
	}
	rt := &resource.Runtime{Numbers: map[string]float64{"min": 504, "none": 0}}
	for _, c := range []struct {
		name   string
		filter *resource.LogFilter
		want   bool
	}{
		{"no filter", nil, true},
		{"status at least", status(resource.OpGE, 500), true},
		{"status at most", status(resource.OpLE, 499), false},
		{"status equal", status(resource.OpEQ, 503), true},
		{"status not equal", status(resource.OpNE, 503), false},
		{"status by runtime", &resource.LogFilter{Kind: resource.FilterStatus, Op: resource.OpGE, Value: 500, Runtime: "min"}, false},
		{"duration", &resource.LogFilter{Kind: resource.FilterDuration, Op: resource.OpGE, Value: 15}, true},
		{"duration too short", &resource.LogFilter{Kind: resource.FilterDuration, Op: resource.OpGE, Value: 16}, false},
		{"traceable", &resource.LogFilter{Kind: resource.FilterTraceable}, true},
		{"not a health check", &resource.LogFilter{Kind: resource.FilterNotHealthCheck}, true},
		{"any flag", &resource.LogFilter{Kind: resource.FilterResponseFlag}, true},
		{"other flag", &resource.LogFilter{Kind: resource.FilterResponseFlag, Flags: []string{"NR", "UH"}}, false},
		{"this flag", &resource.LogFilter{Kind: resource.FilterResponseFlag, Flags: []string{"NR", "UF"}}, true},
		{"and", &resource.LogFilter{Kind: resource.FilterAnd, Sub: []*resource.LogFilter{status(resource.OpGE, 500), status(resource.OpLE, 499)}}, false},
		{"or", &resource.LogFilter{Kind: resource.FilterOr, Sub: []*resource.LogFilter{status(resource.OpGE, 500), status(resource.OpLE, 499)}}, true},
		{"header equal", header(exact("user-agent", "curl/8")), true},
		{"header joined", header(exact("x-multi", "one,two")), true},
		{"header's first value alone", header(exact("x-multi", "one")), false},
		{"header absent", header(exact("x-none", "")), false},
		{"header absent taken as empty", header(resource.HeaderMatch{Name: "x-none", Kind: resource.HeaderString, MissingOK: true}), true},
		{"header present", header(resource.HeaderMatch{Name: "x-multi", Kind: resource.HeaderPresent, Present: true}), true},
		{"header not present", header(resource.HeaderMatch{Name: "x-none", Kind: resource.HeaderPresent, Present: true, Invert: true}), true},
		{"method", header(exact(":method", "GET")), true},
		{"header by expression", header(resource.HeaderMatch{Name: "user-agent", Kind: resource.HeaderString,
			String: resource.StringMatch{Kind: resource.MatchRegex, Regex: regexp.MustCompile("curl.*")}}), true},
		{"runtime never", &resource.LogFilter{Kind: resource.FilterRuntime, Percent: resource.Percent{RuntimeKey: "none", PerMillion: million, Denominator: 100}}, false},
		{"runtime always", &resource.LogFilter{Kind: resource.FilterRuntime, Percent: resource.Percent{PerMillion: million}}, true},
		// The request id begins with 00000000: it is in every sample but the empty.
		{"runtime by request id", &resource.LogFilter{Kind: resource.FilterRuntime, Percent: resource.Percent{PerMillion: 1}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, w, _ := fileLog(t, &resource.AccessLog{Filter: c.filter}, Options{Runtime: rt})
			r := exampleRecord()
			req, resp := exampleHeads()
			capture(r, p, req, resp, nil)
			p.Consume(r)
			if got := w.Stats()[0].Lines == 1; got != c.want {
				t.Errorf("logged: got %v, want %v", got, c.want)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestABadFilterIsRefusedByName(t *testing.T) {
	w := NewWriters(0)
	defer w.Close()
	_, err := Compile([]*resource.AccessLog{{Filter: &resource.LogFilter{Kind: resource.FilterResponseFlag, Flags: []string{"XX"}}}}, w, Options{})
	if err == nil || !strings.Contains(err.Error(), `flags[0]: unknown flag "XX"`) {
		t.Errorf("got %v", err)
	}
}

type remoteLog struct {
	records []record.Record
	values  []string
}

func (l *remoteLog) Log(r *record.Record, v Values) {
	l.records = append(l.records, *r)
	for _, b := range append(append([][]byte{}, v.Request...), v.Response...) {
		l.values = append(l.values, string(b))
	}
}

func TestARemoteLogGetsTheHeadersItAskedFor(t *testing.T) {
	var got remoteLog
	p, err := Compile([]*resource.AccessLog{{GRPC: &resource.GRPCLog{ReqHeaders: []string{"x-multi", "user-agent"}, RespHeaders: []string{"content-type"}}}}, nil,
		Options{Remote: func(*resource.GRPCLog) (Remote, error) { return &got, nil }})
	if err != nil {
		t.Fatal(err)
	}
	r := exampleRecord()
	req, resp := exampleHeads()
	capture(r, p, req, resp, nil)
	p.Consume(r)
	if s := strings.Join(got.values, ","); len(got.records) != 1 || s != "one,curl/8,text/plain" {
		t.Errorf("got %d records with %q", len(got.records), s)
	}
}
