// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"context"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/metrics"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Stats lists every number of the running proxy under Envoy's stat names; ours
// begin with "outrigger.". Numbers of workers are added up by the workers
// themselves, exactly. It fails when one of them does not answer before ctx
// ends. The list is in no order, and a name is in it twice where two clusters
// share one (alt_stat_name): see metrics.Sort. Numbers of a cluster go with it. Any goroutine but a loop may call it.
func (p *Proxy) Stats(ctx context.Context) ([]metrics.Sample, error) {
	t, err := p.gather(ctx)
	if err != nil {
		return nil, err
	}
	s := &sampler{now: p.loopTime()}
	s.all = make([]metrics.Sample, 0, 256+len(t.clusters)*80+len(t.managers)*len(managerCounts))
	for i := range t.managers {
		s.manager(&t.managers[i])
	}
	for i := range t.clusters {
		s.cluster(&t.clusters[i])
	}
	s.filters(t.filters)
	p.listenerSamples(s)
	p.configSamples(s)
	s.worker(t)
	s.tls(p, &t.tls, t.workers.plaintextBesideTLS)
	s.logs(p)
	s.answers(p.answers)
	s.overload(p.overload)
	s.add("cluster_manager.active_clusters", "Clusters configured.", gauge, uint64(len(t.clusters)))
	s.add("outrigger.config_version", "Number of the last configuration given to the workers.", gauge, p.version.Load())
	s.add("outrigger.config_version_adopted", "Number of the configuration that all workers run on.", gauge, p.AdoptedVersion())
	return s.all, nil
}

// sampler collects samples.
type sampler struct {
	all   []metrics.Sample
	scope *metrics.Scope // nil: of the process
	now   int64          // of the loops
}

func (s *sampler) add(name, help string, kind metrics.Kind, v uint64) {
	s.all = append(s.all, metrics.Sample{Scope: s.scope, Name: name, Help: help, Kind: kind, Value: v})
}

// in makes what follows belong to a scope.
func (s *sampler) in(scope *metrics.Scope) { s.scope = scope }

func (s *sampler) time(name, help string, h *metrics.Histogram) {
	if h == nil {
		h = emptyHistogram
	}
	s.all = append(s.all, metrics.Sample{Scope: s.scope, Name: name, Help: help, Kind: metrics.KindHistogram, Unit: metrics.Micros, Histogram: h})
}

// emptyHistogram stands for all that have counted nothing; nobody writes to it.
var emptyHistogram = new(metrics.Histogram)

// statName is a configured name as it appears in stat names: Envoy replaces what
// it splits labels by.
func statName(name string) string { return strings.ReplaceAll(name, ":", "_") }

func (s *sampler) manager(m *managerTotals) {
	name := statName(m.stats.prefix)
	s.in(metrics.NewScope("http."+name, "http", metrics.Tag{Name: "envoy_http_conn_manager_prefix", Value: name}))
	s.all = samples(s.all, s.scope, managerCounts[:], &m.sum)
	s.time("downstream_rq_time", "Time of requests in milliseconds, to the end of the response.", m.sum.latency)
	s.in(nil)
}

// statName is what stats call the cluster.
func (c *cluster) statName(spec *clusterSpec) string {
	return statName(cmp.Or(spec.res.AltStatName, c.name))
}

func (s *sampler) cluster(c *clusterTotals) {
	name := c.c.statName(c.spec)
	tag := metrics.Tag{Name: "envoy_cluster_name", Value: name}
	scope := metrics.NewScope("cluster."+name, "cluster", tag)
	own := metrics.NewScope("outrigger.cluster."+name, "outrigger.cluster", tag)
	for i := range clusterCounts {
		f := &clusterCounts[i]
		s.in(scope)
		n, isOwn := strings.CutPrefix(f.name, ownPrefix)
		if isOwn {
			s.in(own)
		}
		s.add(n, f.help, f.kind, *f.field(&c.stats))
	}
	s.in(scope)
	for _, c := range c.stats.codes {
		s.add("upstream_rq_"+strconv.Itoa(c.status), "Responses by their status.", counter, c.n)
	}
	s.time("upstream_rq_time", "Time of requests in milliseconds, to the end of the response.", c.stats.latency)
	s.membership(c)
	s.subsets(c.spec, own)
	s.zones(c.spec)
	s.outlier(c.spec.outlier)
	s.healthStats(c.spec)
	s.limits(c.spec)
	s.in(own)
	s.breaker(c.spec, name)
	s.lateChecks(c.spec)
	s.add("upstream_cx_idle", "Connections kept for later requests.", gauge, c.idle)
	s.add("panic", "1 while health is ignored for a priority because too few endpoints are healthy.", gauge, zeroOrOne(inPanic(c.spec)))
	s.in(nil)
}

func (s *sampler) membership(c *clusterTotals) {
	v := c.spec.lb.View()
	s.add("membership_total", "Endpoints.", gauge, uint64(v.Len()))
	s.add("membership_healthy", "Endpoints that are healthy.", gauge, uint64(v.HealthyLen()))
	s.add("membership_degraded", "Endpoints that are degraded.", gauge, uint64(v.DegradedLen()))
	s.add("membership_excluded", "Endpoints that count as absent until their first health check.", gauge, uint64(v.ExcludedLen()))
	s.add("membership_change", "Times that endpoints came or went.", counter, c.spec.changes)
}

func inPanic(spec *clusterSpec) bool {
	for _, pr := range spec.lb.View().Priorities() {
		if pr.Panic {
			return true
		}
	}
	return false
}

func zeroOrOne(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// limits shows Envoy's circuit breakers of both priorities.
func (s *sampler) limits(spec *clusterSpec) {
	var pending uint64
	for i, u := range [...]breaker.LimitUse{spec.limits.Use(), spec.limits.UseHigh()} {
		names := &limitStats[i]
		pending += uint64(u.Pending.Active)
		track := [...]*resource.Thresholds{&spec.res.Default, &spec.res.High}[i].TrackRemaining
		for j, use := range [...]breaker.Use{u.Connections, u.Pending, u.Requests, u.Retries} {
			s.add(names[j], "1 while the limit is reached.", gauge, zeroOrOne(use.Open))
			if track {
				s.add(names[j+4], "How many more the limit allows.", gauge, uint64(use.Remaining))
			}
		}
	}
	s.add("upstream_rq_pending_active", "Requests that wait for a connection.", gauge, pending)
}

var limitStats = [...][8]string{limitNames("default"), limitNames("high")}

// limitNames are the stats of a priority's limits, in the order of breaker.LimitUse.
func limitNames(priority string) (names [8]string) {
	for i, n := range [...]string{
		"cx_open", "rq_pending_open", "rq_open", "rq_retry_open",
		"remaining_cx", "remaining_pending", "remaining_rq", "remaining_retries",
	} {
		names[i] = "circuit_breakers." + priority + "." + n
	}
	return names
}

func (s *sampler) breaker(spec *clusterSpec, name string) {
	if spec.circuit == nil {
		return
	}
	m := spec.circuit.Metrics(s.now)
	s.add("breaker_state", "Circuit: 0 closed, 1 open, 2 half-open, 3 forced open, 4 forced closed, 5 disabled, 6 recovering.", gauge, uint64(m.State))
	s.add("breaker_openings_total", "Times that the circuit has opened.", counter, uint64(m.Generation))
	s.add("breaker_error_percent", "Errors per hundred requests of the window.", gauge, uint64(m.ErrorPercent))
	s.add("breaker_slow_percent", "Slow requests per hundred of the window.", gauge, uint64(m.SlowPercent))
	s.add("breaker_window_requests", "Requests of the window.", gauge, m.Requests)
	own := s.scope
	for o := range breaker.Outcome(breaker.Outcomes) {
		outcome := strings.ReplaceAll(o.String(), "-", "_")
		s.in(metrics.NewScope("outrigger.cluster."+name+".breaker."+outcome, "outrigger.cluster.breaker",
			metrics.Tag{Name: "outcome", Value: outcome}, metrics.Tag{Name: "envoy_cluster_name", Value: name}))
		s.add("requests_total", "Requests by what became of them, as the circuit counts.", counter, m.Total[o])
	}
	s.in(own)
}

func (s *sampler) worker(t *totals) {
	s.add("outrigger.tcp.downstream_cx_total", "Connections given to TCP proxies.", counter, t.workers.tcpTotal)
	s.add("outrigger.tcp.downstream_cx_active", "Connections of TCP proxies now.", gauge, t.workers.tcpActive)
	s.floods(&t.workers)
	s.add("outrigger.http2.keepalive_timeout_total", "Connections of HTTP/2 from downstream closed as the peer gave no sign of life.", counter, t.workers.http2KeepAlive)
	s.add("outrigger.tcp.downstream_cx_drained_total", "Connections of TCP proxies ended with the drain time: their listener or chain has gone, or the transport security of their upstream has changed.", counter, t.workers.tcpDrained)
	s.add("outrigger.http.downstream_cx_upgrades_drained_total", "Tunnels that requests had become, ended with the drain time: their listener or chain has gone, or the transport security of their upstream has changed.", counter, t.workers.upgradesDrained)
	s.add("outrigger.http.websockets_closed_total", "Tunnels of WebSocket that got a Close frame (1001, going away) as their drain time was over.", counter, t.workers.webSocketsClosed)
	s.add("outrigger.loops_refused_total", "Connections refused as they lead back to this sidecar: its own that were redirected to it, and original destinations that are its listeners.", counter, t.workers.loopsRefused)
	s.add("outrigger.handover_given_total", "Idle connections that a successor process went on with.", counter, t.workers.handedOver)
	s.add("outrigger.handover_taken_total", "Idle connections of the predecessor process that this one went on with.", counter, t.workers.adopted)
	s.add("outrigger.handover_lost_total", "Idle connections of the predecessor process that had no place here, and were closed.", counter, t.workers.adoptFailed)
	s.add("outrigger.panics_total", "Panics of workers; each cost its connection.", counter, t.workers.panics)
	for i := range t.loops {
		id := strconv.Itoa(i)
		s.in(metrics.NewScope("outrigger.worker_"+id, "outrigger.worker", metrics.Tag{Name: "envoy_worker_id", Value: id}))
		s.all = samples(s.all, s.scope, loopCounts[:], &t.loops[i])
		s.add("longest_tick_micros", "Longest turn of the loop.", gauge, uint64(t.loops[i].MaxTick.Microseconds()))
		s.add("records_dropped_total", "Records for logs and spans that found their ring full.", counter, t.dropped[i])
		s.add("records_waiting", "Records for logs and spans in the ring.", gauge, uint64(t.waiting[i]))
	}
	s.in(nil)
}

// floods adds what HTTP/2 connections were ended for that asked for more than their
// share, together and by kind.
func (s *sampler) floods(w *workerStats) {
	total := uint64(0)
	for kind, n := range w.http2Floods {
		total += n
		name := http2.FloodName(kind)
		s.in(metrics.NewScope("outrigger.http2.flood."+name, "outrigger.http2.flood", metrics.Tag{Name: "kind", Value: name}))
		s.add("connections_total", "Connections of HTTP/2 closed as the peer asked for more than its share, by what of.", counter, n)
	}
	s.in(nil)
	s.add("outrigger.http2.flood_total", "Connections of HTTP/2 closed as the peer asked for more than its share.", counter, total)
	s.add("outrigger.flooder_delayed_total", "Connections that were read later as others of their source had flooded.", counter, w.flooderDelayed)
}

// loopCounts are the stats of outrigger.worker_<n>.
var loopCounts = [...]count[reactor.Stats]{
	{"ticks_total", "Turns of the loop.", counter, func(s *reactor.Stats) *uint64 { return &s.Ticks }},
	{"events_total", "Events of the kernel.", counter, func(s *reactor.Stats) *uint64 { return &s.Events }},
	{"posted_total", "Functions run for other threads.", counter, func(s *reactor.Stats) *uint64 { return &s.Posted }},
	{"timers_total", "Timers fired.", counter, func(s *reactor.Stats) *uint64 { return &s.Timers }},
	{"accepted_total", "Connections accepted.", counter, func(s *reactor.Stats) *uint64 { return &s.Accepted }},
	{"accept_errors_total", "Accepts that failed, as when descriptors ran out.", counter, func(s *reactor.Stats) *uint64 { return &s.AcceptErrors }},
	{"accept_pauses_total", "Times accepting paused for want of places or descriptors.", counter, func(s *reactor.Stats) *uint64 { return &s.AcceptPauses }},
	{"shed_total", "Connections refused after such a pause.", counter, func(s *reactor.Stats) *uint64 { return &s.Shed }},
	{"dialled_total", "Connections begun.", counter, func(s *reactor.Stats) *uint64 { return &s.Dialled }},
	{"closed_total", "Connections closed.", counter, func(s *reactor.Stats) *uint64 { return &s.Closed }},
	{"open", "Connections now.", gauge, func(s *reactor.Stats) *uint64 { return &s.Open }},
	{"read_bytes_total", "Bytes read.", counter, func(s *reactor.Stats) *uint64 { return &s.ReadBytes }},
	{"written_bytes_total", "Bytes written.", counter, func(s *reactor.Stats) *uint64 { return &s.WrittenBytes }},
	{"panics_total", "Panics on the loop.", counter, func(s *reactor.Stats) *uint64 { return &s.Panics }},
}

func (s *sampler) logs(p *Proxy) {
	if p.options.AccessLogs == nil {
		return
	}
	for _, f := range p.options.AccessLogs.Stats() {
		s.in(metrics.NewScope("outrigger.access_log."+f.Path, "outrigger.access_log", metrics.Tag{Name: "path", Value: f.Path}))
		s.add("lines_total", "Lines taken.", counter, f.Lines)
		s.add("dropped_total", "Lines dropped because the file was slower.", counter, f.Dropped)
		s.add("written_bytes_total", "Bytes written.", counter, f.Written)
		s.add("failed_total", "Writes that the system refused.", counter, f.Failed)
	}
	s.in(nil)
}
