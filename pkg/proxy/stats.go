// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
)

// Counters are plain fields of one worker; readers ask the worker for a copy.
// Names in tags are Envoy's.

// managerStats are the counters of one stat_prefix, by worker.
type managerStats struct {
	prefix string
	on     []managerCounters
}

type managerCounters struct {
	cxTotal, cxActive, cxDestroy, cxIdleTimeout         uint64
	rqTotal, rqActive, rqProtocolError, rqHeaderTimeout uint64
	rqIdleTimeout, flowPaused, rxBytes, txBytes         uint64
	cxHTTP2, cxHTTP2Active                              uint64
	upgradesTotal, upgradesActive                       uint64
	rq1xx, rq2xx, rq3xx, rq4xx, rq5xx, rqCompleted      uint64
	rqOverload, rqOverloadLocal, cxOverloadKeepAlive    uint64
	latency                                             *metrics.Histogram // ms in Envoy, µs here
	_                                                   [64]byte
}

// complete counts a finished exchange; status 0 is one without a response.
func (s *managerCounters) complete(status int, nanos int64) {
	s.rqCompleted++
	switch status / 100 {
	case 1:
		s.rq1xx++
	case 2:
		s.rq2xx++
	case 3:
		s.rq3xx++
	case 4:
		s.rq4xx++
	case 5:
		s.rq5xx++
	}
	if s.latency == nil {
		s.latency = new(metrics.Histogram)
	}
	s.latency.Record(uint64(nanos) / 1000)
}

// clusterStats are the counters of one cluster on one worker.
type clusterStats struct {
	cxTotal, cxActive, cxDestroy, cxConnectFail, cxConnectTimeout, cxOverflow, cxIdleTimeout uint64
	rqTotal, rqActive, rqCompleted                                                           uint64
	rqPendingTotal, rqPendingOverflow, rqPendingFailure, rqOverflow                          uint64
	http2KeepAlive                                                                           uint64
	rqTimeout, rqPerTryTimeout, rqCancelled, rqTxReset, rqRxReset                            uint64
	rq1xx, rq2xx, rq3xx, rq4xx, rq5xx                                                        uint64
	retries, retryLimit, retryOverflow, retrySuccess                                         uint64
	retryRateLimited, retryExponential, retryAbandoned, hedges                               uint64
	noneHealthy, shortCircuited, dropOverload, protocolError, mirrorDropped                  uint64
	rxBytes, txBytes                                                                         uint64
	subsetsSelected, subsetsFallback, subsetsFallbackPanic                                   uint64
	zoneDirect, zoneSampled, zoneCross, zoneNoCapacity                                       uint64
	latency                                                                                  *metrics.Histogram
	codes                                                                                    statusCounts
}

// local counts a reply of our own that stands for a response.
func (s *clusterStats) local(status int) {
	s.rqCompleted++
	s.codes.add(status, 1)
	switch status / 100 {
	case 2:
		s.rq2xx++
	case 4:
		s.rq4xx++
	case 5:
		s.rq5xx++
	}
}

func (s *clusterStats) response(status int, nanos int64) {
	s.rqCompleted++
	s.codes.add(status, 1)
	switch status / 100 {
	case 1:
		s.rq1xx++
	case 2:
		s.rq2xx++
	case 3:
		s.rq3xx++
	case 4:
		s.rq4xx++
	case 5:
		s.rq5xx++
	}
	if s.latency == nil {
		s.latency = new(metrics.Histogram)
	}
	s.latency.Record(uint64(max(nanos, 0)) / 1000)
}

// workerStats are counters of a worker that belong to nothing smaller.
type workerStats struct {
	panics, listenerRefused, noFilterChain uint64
	tcpTotal, tcpActive, tcpDrained        uint64
	http2KeepAlive                         uint64
	http2Floods                            [http2.Floods]uint64 // by kind
	flooderDelayed                         uint64               // connections of who has flooded
	upgradesDrained                        uint64
	webSocketsClosed                       uint64
	loopsRefused                           uint64
	plaintextBesideTLS                     uint64 // connections of chains without TLS, where others have it
	handedOver, adopted, adoptFailed       uint64 // connections given to a successor; had of a predecessor
}

// flood counts the end of an HTTP/2 connection, if a flood was the cause, and reports that.
func (s *workerStats) flood(err error) bool {
	kind, ok := http2.Flood(err)
	if ok {
		s.http2Floods[kind]++
	}
	return ok
}

// managerStats returns the counters of a prefix. Off the loops, under mu.
func (p *Proxy) managerStats(prefix string) *managerStats {
	m := p.managers[prefix]
	if m == nil {
		m = &managerStats{prefix: prefix, on: make([]managerCounters, p.options.Workers)}
		p.managers[prefix] = m
	}
	return m
}
