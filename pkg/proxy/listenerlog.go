// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// connectionLog is a listener's own access log: a record for each connection at
// its end, whatever its chain, and for those that no chain is for.
type connectionLog struct {
	plan     *accesslog.Plan
	consumer record.Consumer
}

func (p *Proxy) compileConnectionLog(res *resource.Listener) (*connectionLog, error) {
	if len(res.AccessLog) == 0 {
		return nil, nil
	}
	plan, err := accesslog.Compile(res.AccessLog, p.options.AccessLogs, p.logOptions())
	if err != nil {
		return nil, fmt.Errorf("listener %q: access_log: %w", res.Name, err)
	}
	return &connectionLog{plan: plan, consumer: &consumers{log: plan}}, nil
}

// push logs a connection, if anybody wants to know.
func (l *connectionLog) push(w *worker, r *record.Record) {
	if l == nil {
		return
	}
	b := w.capture[:0]
	for range record.FixedCaptures {
		b = record.AppendCapture(b, nil)
	}
	b = accesslog.AppendCaptures(b, l.plan.Captures(), nil, nil, nil)
	w.capture, r.Captures, r.Consumer = b, b, l.consumer
	w.ring.Push(r)
	r.Captures = nil
}

// accepted logs a connection without a tunnel, whose loop time of beginning is began.
func (l *connectionLog) accepted(w *worker, c *reactor.Conn, began int64, chain string, flags record.Flags, details string, s *record.Security) {
	if l == nil {
		return
	}
	r := connectionRecord(w, c, began, chain)
	r.Flags, r.Details, r.Security = flags, details, s
	l.push(w, &r)
}

// connectionRecord is the record of a connection without a tunnel.
func connectionRecord(w *worker, c *reactor.Conn, began int64, chain string) record.Record {
	age := w.loop.Now() - began
	return record.Record{
		Kind: record.TCPConnection, Start: w.loop.Wall() - age, End: age, ConnectionID: c.ID(),
		RequestEnd: record.Never, UpstreamRequest: record.Never, UpstreamResponse: record.Never, ResponseStart: record.Never,
		Remote: c.RemoteAddr(), DirectRemote: c.DirectRemoteAddr(), Local: c.LocalAddr(), FilterChain: chain,
		BytesReceived: c.ReadBytes(), WireReceived: c.ReadBytes(), BytesSent: c.WrittenBytes(), WireSent: c.WrittenBytes(),
	}
}
