// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Options are what Compile needs beside the resources.
type Options struct {
	// Hostname is what %HOSTNAME% gives, "-" if empty.
	Hostname string
	// Env looks up %ENVIRONMENT(NAME)%, once. Nil: os.LookupEnv.
	Env func(string) (string, bool)
	// Runtime overrides the constants of filters that name a runtime key. A plan
	// is compiled anew when runtime changes. May be nil.
	Runtime *resource.Runtime
	// FirstCapture is the index in the record's captures of the first of
	// Captures; 0 means record.FixedCaptures.
	FirstCapture int
	// Remote opens a destination that is no file. Nil refuses them.
	Remote func(g *resource.GRPCLog) (Remote, error)
}

// Remote takes the records of a log that is no file. Log is called under the
// plan's lock: it must not block, and must not keep r or the values.
type Remote interface {
	Log(r *record.Record, v Values)
}

// Values are the captured headers that a Remote asked for in its resource, in
// the resource's order; a nil value was absent.
type Values struct {
	Request  [][]byte
	Response [][]byte
}

// Plan is what one connection manager logs. Captures is for loops; Consume is
// for the readers of record rings.
type Plan struct {
	captures []Capture // set once
	first    int
	logs     []logger

	mu   sync.Mutex // guards all below, and the time caches of the formats
	vals [][]byte   // captures of the record at hand, the fixed ones first
	rnd  *rand.Rand
}

// logger is one access log: a filter, and a file or a remote destination.
type logger struct {
	filter *filter
	file   *fileUser
	format *formatter
	remote Remote
	req    []int // indexes into vals
	resp   []int
	out    Values
}

// Compile makes a plan. Files are opened through w. Errors name the log and the
// field; all are collected.
func Compile(logs []*resource.AccessLog, w *Writers, o Options) (*Plan, error) {
	p := &Plan{first: o.FirstCapture, rnd: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	if p.first == 0 {
		p.first = record.FixedCaptures
	}
	c := compiler{plan: p, opts: &o}
	var errs []error
	for i, l := range logs {
		g, err := c.logger(l, w)
		if err != nil {
			errs = append(errs, fmt.Errorf("access_log[%d]: %w", i, err))
			continue
		}
		p.logs = append(p.logs, g)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// Captures are the values that the loop must capture, in this order, after the
// fixed ones (or from Options.FirstCapture on).
func (p *Plan) Captures() []Capture { return p.captures }

// Empty reports whether there is nothing to log.
func (p *Plan) Empty() bool { return p == nil || len(p.logs) == 0 }

// Consume logs one record. It appends to the writers' buffers and does not wait
// for any disk or peer.
func (p *Plan) Consume(r *record.Record) {
	p.mu.Lock()
	p.vals = appendValues(p.vals[:0], r.Captures)
	for i := range p.logs {
		g := &p.logs[i]
		if g.filter != nil && !g.filter.pass(p, r) {
			continue
		}
		if g.file != nil {
			g.file.log(g.format, p, r)
			continue
		}
		g.remote.Log(r, g.values(p))
	}
	p.mu.Unlock()
}

func (g *logger) values(p *Plan) Values {
	for i, at := range g.req {
		g.out.Request[i] = p.value(at)
	}
	for i, at := range g.resp {
		g.out.Response[i] = p.value(at)
	}
	return g.out
}

// value is a capture of the record at hand, nil where it is absent.
func (p *Plan) value(i int) []byte {
	if uint(i) < uint(len(p.vals)) {
		return p.vals[i]
	}
	return nil
}

// appendValues splits a record's captures, once for all formats; an absent one
// is nil, an empty one is not. See record.AppendCapture.
func appendValues(dst [][]byte, b []byte) [][]byte {
	for len(b) >= 2 {
		n := int(b[0])<<8 | int(b[1])
		b = b[2:]
		if n == 0xffff {
			dst = append(dst, nil)
			continue
		}
		if n > len(b) {
			break
		}
		dst = append(dst, b[:n:n])
		b = b[n:]
	}
	return dst
}

// compiler collects what the logs of one plan share.
type compiler struct {
	plan *Plan
	opts *Options
}

// capture returns the index of a value, asking the loop for it if need be.
func (c *compiler) capture(want Capture) int {
	if i, ok := fixed(want); ok {
		return i
	}
	for i, have := range c.plan.captures {
		if have == want {
			return c.plan.first + i
		}
	}
	c.plan.captures = append(c.plan.captures, want)
	return c.plan.first + len(c.plan.captures) - 1
}

// fixed finds a value among those that every record has. The path of a record is
// the one received, so that it serves %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% too.
func fixed(c Capture) (int, bool) {
	if c.Kind != ReqHeader && c.Kind != ReqHeaderAll {
		return 0, false
	}
	if c.Kind == ReqHeader && c.Name == "x-envoy-original-path" && c.Alt == ":path" {
		return record.CapturePath, true
	}
	if c.Alt != "" {
		return 0, false
	}
	switch c.Name {
	case ":method":
		return record.CaptureMethod, true
	case ":path":
		return record.CapturePath, true
	case ":authority", "host":
		return record.CaptureAuthority, true
	}
	if c.Kind == ReqHeaderAll {
		return 0, false // a second field must be seen too
	}
	switch c.Name {
	case "x-request-id":
		return record.CaptureRequestID, true
	case "user-agent":
		return record.CaptureUserAgent, true
	}
	return 0, false
}

func (c *compiler) logger(l *resource.AccessLog, w *Writers) (g logger, err error) {
	if l.Filter != nil {
		if g.filter, err = c.filter(l.Filter); err != nil {
			return g, fmt.Errorf("filter: %w", err)
		}
	}
	switch {
	case l.File != nil:
		if g.format, err = c.format(l.File.Format); err != nil {
			return g, fmt.Errorf("file %q: %w", l.File.Path, err)
		}
		if g.file, err = w.open(l.File.Path); err != nil {
			return g, fmt.Errorf("path: %w", err)
		}
	case l.GRPC != nil:
		if c.opts.Remote == nil {
			return g, errors.New("grpc: no access log service is available here")
		}
		if g.remote, err = c.opts.Remote(l.GRPC); err != nil {
			return g, fmt.Errorf("grpc: %w", err)
		}
		for _, name := range l.GRPC.ReqHeaders {
			g.req = append(g.req, c.capture(Capture{Kind: ReqHeader, Name: name}))
		}
		for _, name := range l.GRPC.RespHeaders {
			g.resp = append(g.resp, c.capture(Capture{Kind: RespHeader, Name: name}))
		}
		g.out = Values{Request: make([][]byte, len(g.req)), Response: make([][]byte, len(g.resp))}
	default:
		return g, errors.New("no destination")
	}
	return g, nil
}

var _ record.Consumer = (*Plan)(nil)
