// SPDX-License-Identifier: Apache-2.0

package als

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	logv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Bounds of one log.
const (
	queueBytes    = 4 << 20 // of entries that wait
	defaultBatch  = 16 << 10
	defaultFlush  = time.Second
	firstBackoff  = 250 * time.Millisecond
	maxBackoff    = 30 * time.Second
	maxBatchBytes = 3 << 20 // receivers take 4 MiB by default
)

// Stats are the counts of one log. Entries accepted are sent, lost or waiting.
type Stats struct {
	Cluster, Log string
	Accepted     uint64
	Dropped      uint64 // found the queue full
	Sent         uint64 // handed to a stream
	Waiting      int
	Error        string // the last failure
}

// log is one log of one cluster and its goroutine.
type log struct {
	users int // of the pool's mutex
	// Set once.
	key    string // in the pool
	spec   resource.GRPCLog
	client alsv3.AccessLogServiceClient
	node   *corev3.Node
	batch  int
	every  time.Duration
	ctx    context.Context
	stop   context.CancelFunc
	wake   chan struct{}
	done   chan struct{}

	mu      sync.Mutex // guards the rest
	entries []proto.Message
	sizes   []int
	bytes   int
	closing bool
	stats   Stats

	// Owned by the goroutine.
	stream alsv3.AccessLogService_StreamAccessLogsClient
	cancel context.CancelFunc
}

// Log implements accesslog.Remote.
func (l *log) Log(r *record.Record, v accesslog.Values) {
	var e proto.Message
	if l.full() {
		return
	}
	if l.spec.TCP {
		e = tcpEntry(r)
	} else {
		e = httpEntry(r, v, l.spec.ReqHeaders, l.spec.RespHeaders)
	}
	n := proto.Size(e)
	l.mu.Lock()
	l.entries = append(l.entries, e)
	l.sizes = append(l.sizes, n)
	l.bytes += n
	l.stats.Accepted++
	full := l.bytes >= l.batch
	l.mu.Unlock()
	if full {
		l.signal()
	}
}

func (l *log) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes >= queueBytes || l.closing {
		l.stats.Dropped++
		return true
	}
	return false
}

func (l *log) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run sends what waits by size and age, until the pool closes.
func (l *log) run() {
	defer close(l.done)
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	pause := firstBackoff
	for {
		select {
		case <-l.wake:
		case <-tick.C:
		case <-l.ctx.Done():
		}
		for {
			entries, n, last := l.peek()
			if len(entries) == 0 || l.ctx.Err() != nil {
				if last || l.ctx.Err() != nil {
					l.hangUp()
					return
				}
				break
			}
			if err := l.send(entries); err != nil {
				l.failed(err)
				if !l.wait(pause) {
					continue
				}
				pause = min(2*pause, maxBackoff)
				continue
			}
			pause = firstBackoff
			l.sent(len(entries), n)
		}
	}
}

// peek is the next batch; it stays in the queue until it was sent.
func (l *log) peek() (entries []proto.Message, bytes int, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range l.sizes {
		if i > 0 && bytes+n > min(max(l.batch, 1), maxBatchBytes) {
			break
		}
		bytes += n
		entries = append(entries, l.entries[i])
	}
	return entries, bytes, l.closing
}

func (l *log) sent(n, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.entries[:n])
	l.entries, l.sizes = l.entries[n:], l.sizes[n:]
	if len(l.entries) == 0 {
		l.entries, l.sizes = nil, nil
	}
	l.bytes -= bytes
	l.stats.Sent += uint64(n)
}

func (l *log) failed(err error) {
	l.hangUp()
	l.mu.Lock()
	l.stats.Error = err.Error()
	l.mu.Unlock()
}

// wait pauses between half and all of d.
func (l *log) wait(d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

func (l *log) send(entries []proto.Message) error {
	msg := &alsv3.StreamAccessLogsMessage{}
	if l.stream == nil {
		ctx, cancel := context.WithCancel(l.ctx)
		s, err := l.client.StreamAccessLogs(ctx)
		if err != nil {
			cancel()
			return err
		}
		l.stream, l.cancel = s, cancel
		msg.Identifier = &alsv3.StreamAccessLogsMessage_Identifier{Node: l.node, LogName: l.spec.LogName}
	}
	if l.spec.TCP {
		list := &alsv3.StreamAccessLogsMessage_TCPAccessLogEntries{}
		for _, e := range entries {
			list.LogEntry = append(list.LogEntry, e.(*logv3.TCPAccessLogEntry))
		}
		msg.LogEntries = &alsv3.StreamAccessLogsMessage_TcpLogs{TcpLogs: list}
	} else {
		list := &alsv3.StreamAccessLogsMessage_HTTPAccessLogEntries{}
		for _, e := range entries {
			list.LogEntry = append(list.LogEntry, e.(*logv3.HTTPAccessLogEntry))
		}
		msg.LogEntries = &alsv3.StreamAccessLogsMessage_HttpLogs{HttpLogs: list}
	}
	err := l.stream.Send(msg)
	if err != nil {
		// The stream's own error says more than "EOF".
		if _, e := l.stream.CloseAndRecv(); e != nil {
			err = e
		}
	}
	return err
}

// hangUp ends the stream. At the end of the log it lets what was sent arrive.
func (l *log) hangUp() {
	if l.stream == nil {
		return
	}
	if l.ctx.Err() == nil {
		l.stream.CloseAndRecv() // the service's answer is empty, or its reason to end
	}
	l.cancel()
	l.stream, l.cancel = nil, nil
}

// close sends what waits until ctx ends.
func (l *log) close(ctx context.Context) {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.signal()
	select {
	case <-l.done:
	case <-ctx.Done():
		l.stop()
		<-l.done
	}
	l.stop()
}

func (l *log) read() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Cluster, s.Log, s.Waiting = l.spec.Cluster, l.spec.LogName, len(l.entries)
	return s
}
