// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// Bounds of one rule.
const (
	MaxBodyBytes = 1 << 20 // of one direction
	MaxRules     = 32      // of one filter
	maxPatterns  = 32
)

// Rule is one tap: what it matches, what it copies, what it hides and where the
// copy goes. It is immutable.
type Rule struct {
	Name     string
	Match    Match
	Capture  Capture
	Expires  int64 // unix nanoseconds, 0: never
	Redactor *Redactor
	Sink     SinkConfig
}

// Match says which exchanges, or connections. All parts must hold; empty parts hold
// always. Status, Method, PathPrefix and Headers are of exchanges only.
type Match struct {
	Status       StatusMatch
	Method       string
	PathPrefix   string
	Headers      []HeaderMatch
	ServerNames  []string     // one has to hold: see HoldsServerName
	Peers        []string     // one has to hold: see HoldsPeer
	Flags        record.Flags // one has to be set; 0: whatever is
	Sample       uint32       // parts of a million
	MaxPerSecond int          // per worker, 0: no limit
}

// HeaderMatch is a request header whose values, joined with commas, must equal
// Value; an empty Value asks for presence.
type HeaderMatch struct {
	Name  string // lower case
	Value string
}

// StatusMatch is a range of status codes; the zero value takes all.
type StatusMatch struct {
	From, To uint16 // From ≤ status ≤ To
	set      bool
}

// Any reports whether every status matches, and exchanges without one.
func (m StatusMatch) Any() bool { return !m.set }

// Holds reports whether the status matches; 0 is an exchange without response.
func (m StatusMatch) Holds(status uint16) bool {
	return !m.set || status >= m.From && status <= m.To
}

// Capture are the body limits in bytes; 0 copies no body. Of a connection, the request's
// is for what the client sends and the response's for what the server does.
type Capture struct {
	RequestBody  int
	ResponseBody int
}

// rulesJSON is the configuration as it travels in xDS.
type rulesJSON struct {
	Direction string     `json:"direction"`
	Taps      []ruleJSON `json:"taps"`
}

type ruleJSON struct {
	Name  string `json:"name"`
	Match struct {
		Status        string        `json:"status"`
		Method        string        `json:"method"`
		PathPrefix    string        `json:"pathPrefix"`
		Headers       []HeaderMatch `json:"headers"`
		ServerNames   []string      `json:"serverNames"`
		Peers         []string      `json:"peers"`
		Flags         []string      `json:"flags"`
		SamplePercent *float64      `json:"samplePercent"`
		MaxPerSecond  int           `json:"maxPerSecond"`
	} `json:"match"`
	Capture struct {
		RequestBodyBytes  int `json:"requestBodyBytes"`
		ResponseBodyBytes int `json:"responseBodyBytes"`
	} `json:"capture"`
	Redact        RedactConfig    `json:"redact"`
	ExpiresUnixMs json.Number     `json:"expiresUnixMs"`
	Sink          json.RawMessage `json:"sink"`
}

// Config is the configuration of one tap filter.
type Config struct {
	Direction string // of the listener: "inbound", "outbound" or "" where unknown
	Rules     []*Rule
}

// ParseConfig reads the JSON of a tap filter's configuration. It refuses unknown
// fields, and collects all errors, each with its field path.
func ParseConfig(config []byte) (*Config, error) { return parse(config, false) }

func parse(config []byte, connections bool) (*Config, error) {
	var in rulesJSON
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("tap: %w", err)
	}
	if d.More() {
		return nil, errors.New("tap: more than one JSON value")
	}
	if len(in.Taps) > MaxRules {
		return nil, fmt.Errorf("tap: taps: %d rules, at most %d are allowed", len(in.Taps), MaxRules)
	}
	c := &Config{Direction: in.Direction}
	var errs []error
	if d := in.Direction; d != "" && d != "inbound" && d != "outbound" {
		errs = append(errs, fmt.Errorf(`tap: direction: %q is neither "inbound" nor "outbound"`, d))
	}
	for i := range in.Taps {
		r, err := in.Taps[i].rule()
		if connections {
			err = errors.Join(err, in.Taps[i].ofConnections(r))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tap: taps[%d]: %w", i, err))
			continue
		}
		c.Rules = append(c.Rules, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

func (j *ruleJSON) rule() (*Rule, error) {
	var errs []error
	note := func(path string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
	}
	r := &Rule{Name: j.Name}
	if r.Name == "" {
		note("name", errors.New("required"))
	}
	var err error
	r.Match.Status, err = ParseStatus(j.Match.Status)
	note("match.status", err)
	r.Match.Method, r.Match.PathPrefix = j.Match.Method, j.Match.PathPrefix
	for i, h := range j.Match.Headers {
		h.Name = strings.ToLower(h.Name)
		if !codec.ValidName([]byte(h.Name)) {
			note(fmt.Sprintf("match.headers[%d].name", i), fmt.Errorf("%q is not a header name", h.Name))
		}
		r.Match.Headers = append(r.Match.Headers, h)
	}
	note("match", j.connectionMatch(&r.Match))
	r.Match.Sample = 1_000_000
	if p := j.Match.SamplePercent; p != nil {
		if *p < 0 || *p > 100 {
			note("match.samplePercent", fmt.Errorf("%v is not between 0 and 100", *p))
		} else {
			r.Match.Sample = uint32(*p * 10_000)
		}
	}
	if r.Match.MaxPerSecond = j.Match.MaxPerSecond; r.Match.MaxPerSecond < 0 {
		note("match.maxPerSecond", errors.New("negative"))
	}
	r.Capture, err = j.captures()
	note("capture", err)
	r.Expires, err = j.expires()
	note("expiresUnixMs", err)
	r.Redactor, err = NewRedactor(j.Redact)
	note("redact", err)
	r.Sink, err = parseSink(j.Sink)
	note("sink", err)
	return r, errors.Join(errs...)
}

func (j *ruleJSON) captures() (Capture, error) {
	c := Capture{RequestBody: j.Capture.RequestBodyBytes, ResponseBody: j.Capture.ResponseBodyBytes}
	for _, n := range [...]struct {
		name string
		n    int
	}{{"requestBodyBytes", c.RequestBody}, {"responseBodyBytes", c.ResponseBody}} {
		if n.n < 0 || n.n > MaxBodyBytes {
			return c, fmt.Errorf("%s: %d is not between 0 and %d", n.name, n.n, MaxBodyBytes)
		}
	}
	return c, nil
}

func (j *ruleJSON) expires() (int64, error) {
	if j.ExpiresUnixMs == "" {
		return 0, nil
	}
	// A protobuf Struct carries numbers as floating point.
	ms, err := j.ExpiresUnixMs.Float64()
	if err != nil || ms < 0 || ms > 9e12 {
		return 0, fmt.Errorf("%q is not a time in milliseconds", j.ExpiresUnixMs)
	}
	return int64(ms) * 1e6, nil
}

// ParseStatus reads "5xx", "404", a comparison such as ">= 400", or "" for any.
func ParseStatus(s string) (m StatusMatch, err error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return m, nil
	}
	m.set = true
	if len(s) == 3 && strings.EqualFold(s[1:], "xx") && s[0] >= '1' && s[0] <= '5' {
		m.From = uint16(s[0]-'0') * 100
		m.To = m.From + 99
		return m, nil
	}
	op := strings.TrimRight(s[:min(2, len(s))], " 0123456789")
	n, err := strconv.ParseUint(strings.TrimSpace(s[len(op):]), 10, 16)
	if err != nil || n < 100 || n > 599 {
		return StatusMatch{}, fmt.Errorf(`%q is not a status: want "404", "5xx", ">= 400", "< 300" or the like`, s)
	}
	v := uint16(n)
	switch op {
	case "", "=", "==":
		m.From, m.To = v, v
	case ">=":
		m.From, m.To = v, 999
	case ">":
		m.From, m.To = v+1, 999
	case "<=":
		m.From, m.To = 1, v
	case "<":
		m.From, m.To = 1, v-1
	default:
		return StatusMatch{}, fmt.Errorf("%q: unknown comparison %q", s, op)
	}
	return m, nil
}
