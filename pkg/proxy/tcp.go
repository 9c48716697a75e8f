// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/accesslog"
	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/codec/proxyproto"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// tcpProxy is a compiled TCP proxy.
type tcpProxy struct {
	res      *resource.TCPProxy
	chain    string
	clusters []weighted
	total    uint32
	log      *accesslog.Plan
	consumer record.Consumer
	taps     []filter.ConnectionFilter // by worker; nil: none
}

func (p *Proxy) compileTCP(_ *resource.Listener, fc *resource.FilterChain) (t *tcpProxy, err error) {
	t = &tcpProxy{res: fc.TCP, chain: fc.Name}
	if t.taps, err = p.compileTap(fc.TCP.Tap); err != nil {
		return nil, err
	}
	for i := range t.res.Clusters {
		w := &t.res.Clusters[i]
		t.total += w.Weight
		t.clusters = append(t.clusters, weighted{cluster: p.slot(w.Name), res: w, upTo: t.total, criteria: newCriteria(w.MetadataMatch)})
	}
	if len(t.res.AccessLog) > 0 {
		plan, err := accesslog.Compile(t.res.AccessLog, p.options.AccessLogs, p.logOptions())
		if err != nil {
			return nil, err
		}
		t.log = plan
		t.consumer = &consumers{log: plan}
	}
	return t, nil
}

// tunnel is one proxied TCP connection: two sides whose bytes go across, with
// half-close kept in both directions.
type tunnel struct {
	w        *worker
	listener *listener
	chain    *chain
	proxy    *tcpProxy
	down     tunnelSide
	up       tunnelSide
	on       *clusterOn
	limits   *breaker.Limits
	host     *lb.Host
	tried    []*lb.Host
	attempts int
	timer    reactor.Timer
	started  int64
	active   int64
	rec      record.Record
	open     bool
	ended    bool
	retire   int64 // when to close, its listener having gone; 0: not
	leaves   int64 // when to close, being outdated; 0: not
	noticed  bool  // both sides were told
	teaches  *teaching
	observer filter.ConnectionObserver // nil: nobody follows it
	// of the connect that runs, or was the last one
	immediate, timedOut bool
	secure              *resource.UpstreamTLS // what it was made with

	prev, next *tunnel // in worker.tunnels
}

var _ reactor.Relay = (*tunnelSide)(nil)

// tunnelSide is one of the two connections and the handler of its events.
type tunnelSide struct {
	t     *tunnel
	conn  *reactor.Conn
	other *tunnelSide
	eof   bool
	held  bool
	seen  bool // the observer wants what comes next
}

func (w *worker) newTunnel(c *reactor.Conn, l *listener, ch *chain, p *tcpProxy, s *record.Security) reactor.Handler {
	t := &tunnel{w: w, listener: l, chain: ch, proxy: p}
	t.down = tunnelSide{t: t, conn: c, other: &t.up}
	t.up = tunnelSide{t: t, other: &t.down}
	t.timer.Target = t
	t.started, t.active = w.accepted(), w.loop.Now()
	if w.inspected != nil {
		t.teaches = w.inspected.teaching()
	}
	t.rec = record.Record{
		Kind: record.TCPConnection, Start: w.loop.Wall() - (t.active - t.started), ConnectionID: c.ID(),
		RequestEnd: record.Never, UpstreamRequest: record.Never, UpstreamResponse: record.Never, ResponseStart: record.Never,
		Remote: c.RemoteAddr(), DirectRemote: c.DirectRemoteAddr(), Local: c.LocalAddr(), FilterChain: ch.name, Security: s,
	}
	w.stats.tcpTotal++
	w.stats.tcpActive++
	w.addTunnel(t)
	t.retire = w.tunnelLeavesAt(l, ch)
	t.observe()
	c.Pause() // until there is somewhere to go
	t.down.held = true
	t.connect()
	return &t.down
}

// connect dials an endpoint of the route's cluster.
func (t *tunnel) connect() {
	w := t.w
	pick := uint32(w.random.Uint64() % uint64(max(t.proxy.total, 1)))
	var c *cluster
	req := lb.Request{Tried: t.tried, HostAttempts: 3}
	for i := range t.proxy.clusters {
		if pick < t.proxy.clusters[i].upTo {
			c, req.Criteria = t.proxy.clusters[i].cluster, t.proxy.clusters[i].criteria.lb
			break
		}
	}
	if c == nil {
		t.fail(record.NC, "cluster_not_found")
		return
	}
	t.rec.Cluster = c.name
	if t.on = w.clusterOn(c); t.on == nil {
		t.fail(record.NC, "cluster_not_found")
		return
	}
	req.Random = w.random.Uint64()
	if t.proxy.res.HashSourceIP {
		req.Hash, req.HasHash = hashAddr(t.rec.Remote.Addr()), true
	}
	t.chooseMember(&req)
	if t.on.originals != nil {
		t.host = t.on.pickOriginal(t.rec.Local, t.rec.DirectRemote)
	} else {
		t.host = t.on.picker.Pick(t.on.spec.lb.View(), &req)
		t.on.countPick(&req)
	}
	if t.host == nil {
		t.on.stats.noneHealthy++
		t.fail(record.UH, "")
		return
	}
	t.limits = t.on.spec.limits
	if !t.limits.TryConnection() {
		t.limits = nil
		t.on.stats.cxOverflow++
		t.fail(record.UO, "overflow")
		return
	}
	t.attempts++
	t.timedOut, t.rec.TransportReason = false, ""
	t.rec.Attempts = uint16(t.attempts)
	t.rec.UpstreamAddr, t.rec.UpstreamPath, t.rec.HasUpstream = t.host.Dial(), t.host.Path(), true
	if !w.loop.MayDial() {
		w.makePlace()
	}
	t.secure = t.on.transport(t.host).res
	conn, err := t.on.dial(t.host, "", &t.up)
	if err != nil {
		t.release()
		t.rec.TransportReason = connectFailure(err, true).Reason
		t.fail(record.UF|record.URX, "")
		return
	}
	t.up.conn, t.immediate = conn, conn.Closed()
	t.introduce()
	conn.SetWatermark(watermark(t.on.spec.res.BufferLimit))
	t.host.Conns.Add(1)
	t.host.Stats.CxTotal.Add(1)
	t.on.stats.cxTotal++
	t.on.stats.cxActive++
	w.loop.Schedule(&t.timer, t.on.spec.res.ConnectTimeout)
}

// introduce begins the connection to an upstream with a PROXY header, where its cluster
// wants one. It goes out with the first bytes, or alone.
func (t *tunnel) introduce() {
	introduce(t.up.conn, t.on.spec.res, t.down.conn.RemoteAddr(), t.down.conn.LocalAddr())
}

// introduce is for connections of pools, too: those carry many clients' requests and
// speak for none of them (zero addresses: UNKNOWN, LOCAL).
func introduce(c *reactor.Conn, res *resource.Cluster, from, to netip.AddrPort) {
	switch res.ProxyProtocol {
	case 1:
		c.Commit(proxyproto.AppendV1(c.Reserve(proxyproto.MaxLine), from, to))
	case 2:
		c.Commit(proxyproto.AppendV2(c.Reserve(64), from, to))
	}
}

func (t *tunnel) release() {
	if t.limits != nil {
		t.limits.ReleaseConnection()
		t.limits = nil
	}
}

// fail ends a connection that has no upstream.
func (t *tunnel) fail(f record.Flags, details string) {
	t.rec.Flags |= f
	t.rec.CloseDetails = details
	t.down.conn.Close(nil)
}

// OnTimer is the connect timeout, then the idle timeout.
func (t *tunnel) OnTimer(*reactor.Timer) {
	if !t.open {
		t.timedOut = true
		t.up.conn.Close(nil)
		return
	}
	now, idle := t.w.loop.Now(), int64(t.proxy.res.IdleTimeout)
	switch {
	case now >= t.due() && !t.noticed:
		t.w.stats.tcpDrained++
		t.notice()
	case now >= t.due():
		t.down.conn.Close(nil)
	case idle > 0 && now >= t.active+idle:
		t.rec.CloseDetails = "tcp_session_idle_timeout"
		t.down.conn.Close(nil)
	default:
		t.arm()
	}
}

// noticeTime is how long both sides have to take leave once they were told.
const noticeTime = time.Second

// notice tells both sides that the connection ends: FIN, behind what waits for them.
// What they send after that has nowhere to go.
func (t *tunnel) notice() {
	t.noticed = true
	t.noteEnd()
	t.down.conn.CloseWrite()
	t.up.conn.CloseWrite()
	t.retire, t.leaves = t.w.loop.Now()+int64(noticeTime), 0
	t.arm()
}

// never is later than any time.
const never = int64(1 << 62)

// due is when to close the connection, whatever goes on.
func (t *tunnel) due() int64 {
	due := never
	if t.retire != 0 {
		due = t.retire
	}
	if t.leaves != 0 {
		due = min(due, t.leaves)
	}
	return due
}

// noteEnd writes down why the connection ends.
func (t *tunnel) noteEnd() {
	t.rec.CloseDetails = failureDrained.Details
	if t.leaves != 0 && t.w.loop.Now() >= t.leaves {
		t.rec.CloseDetails = detailsOutdated
		t.rec.Flags |= record.LR
	}
}

// arm makes the timer of an open tunnel fire at what is due first.
func (t *tunnel) arm() {
	due := t.due()
	if idle := t.proxy.res.IdleTimeout; idle > 0 {
		due = min(due, t.active+int64(idle))
	}
	if due < never {
		t.w.loop.Schedule(&t.timer, max(0, time.Duration(due-t.w.loop.Now())))
	}
}

func (w *worker) addTunnel(t *tunnel) {
	t.next = w.tunnels
	if t.next != nil {
		t.next.prev = t
	}
	w.tunnels = t
}

func (w *worker) removeTunnel(t *tunnel) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.tunnels = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
}

// outdated reports whether another connection to the endpoint would be made in another
// way by now.
func (t *tunnel) outdated() bool { return t.secure != t.on.transport(t.host).res }

// OnConnect implements reactor.Handler, of the upstream side.
func (s *tunnelSide) OnConnect(c *reactor.Conn) {
	t := s.t
	if t.outdated() {
		c.Close(nil)
		return
	}
	t.open = true
	t.timer.Stop()
	if o := t.on.spec.outlier; o != nil {
		o.Connected(t.host, t.on.tally(t.host))
		t.on.changed()
	}
	t.rec.UpstreamLocal = c.LocalAddr()
	t.rec.UpstreamConnectionID = c.ID()
	t.rec.UpstreamRequest = t.w.loop.Now() - t.started
	t.arm()
	t.down.hold(false)
	if t.down.eof {
		c.CloseWrite()
	}
}

// OnData implements reactor.Handler.
func (s *tunnelSide) OnData(_ *reactor.Conn, in []byte) int {
	t := s.t
	t.active = t.w.loop.Now()
	if t.teaches != nil {
		t.w.heard(t.teaches, s == &t.up)
		t.teaches = nil
	}
	if s.seen {
		s.seen = t.observer.OnBytes(s == &t.up, in, t.active)
	}
	if s == &t.down {
		t.rec.BytesReceived += uint64(len(in))
	} else {
		t.rec.BytesSent += uint64(len(in))
		if t.rec.UpstreamResponse < 0 {
			t.rec.UpstreamResponse = t.active - t.started
		}
	}
	s.other.conn.Write(in)
	return len(in)
}

// RelayTo implements reactor.Relay: the first bytes, and those that teach or are tapped,
// are seen.
func (s *tunnelSide) RelayTo(*reactor.Conn) *reactor.Conn {
	if t := s.t; !t.open || t.teaches != nil || s.seen || t.ended {
		return nil
	}
	return s.other.conn
}

// Relayed implements reactor.Relay.
func (s *tunnelSide) Relayed(_ *reactor.Conn, n int) {
	t := s.t
	t.active = t.w.loop.Now()
	if s == &t.down {
		t.rec.BytesReceived += uint64(n)
	} else {
		t.rec.BytesSent += uint64(n)
	}
}

// OnEOF implements reactor.Handler: half-close goes across.
func (s *tunnelSide) OnEOF(*reactor.Conn) {
	s.eof = true
	if s.other.conn != nil {
		s.other.conn.CloseWrite()
	}
}

// OnHighWater implements reactor.Handler: this side takes no more, the other is
// not read.
func (s *tunnelSide) OnHighWater(*reactor.Conn) { s.other.hold(true) }

// OnLowWater implements reactor.Handler.
func (s *tunnelSide) OnLowWater(*reactor.Conn) { s.other.hold(false) }

func (s *tunnelSide) hold(on bool) {
	if s.held == on || s.conn == nil {
		return
	}
	s.held = on
	if on {
		s.conn.Pause()
	} else {
		s.conn.Resume()
	}
}

// OnClose implements reactor.Handler.
func (s *tunnelSide) OnClose(_ *reactor.Conn, err error) {
	t := s.t
	if s == &t.up {
		t.upstreamClosed(err)
		return
	}
	t.end()
}

// upstreamClosed tries another endpoint where none was reached yet; else what
// the upstream sent last is delivered, and the tunnel ends.
func (t *tunnel) upstreamClosed(err error) {
	t.host.Conns.Add(-1)
	t.on.stats.cxActive--
	t.on.stats.cxDestroy++
	t.release()
	defer t.w.lostCluster(t.on)
	if t.ended {
		return
	}
	if !t.open && t.outdated() { // which says nothing of the endpoint
		t.up.conn = nil
		t.attempts--
		t.connect()
		return
	}
	if !t.open {
		if !t.timedOut {
			t.rec.TransportReason = connectFailure(err, t.immediate).Reason
		}
		t.host.Stats.CxConnectFail.Add(1)
		t.on.stats.cxConnectFail++
		if t.on.spec.outlier != nil && !short(err) {
			t.on.spec.outlier.Local(t.host, t.on.tally(t.host), breaker.NotConnect)
			t.on.changed()
		}
		t.up.conn = nil
		if t.attempts < max(t.proxy.res.MaxConnectAttempts, 1) {
			t.tried = append(t.tried, t.host)
			t.connect()
			return
		}
		t.fail(record.UF|record.URX, "")
		return
	}
	if err != nil {
		t.rec.Flags |= record.UR
		t.down.conn.Abort()
		return
	}
	t.down.conn.CloseAfterFlush(time.Second)
}

// end records the connection.
func (t *tunnel) end() {
	if t.ended {
		return
	}
	t.ended = true
	t.timer.Stop()
	t.w.removeTunnel(t)
	if t.up.conn != nil {
		t.up.conn.CloseAfterFlush(0)
		if !t.open {
			t.up.conn.Close(nil)
		}
	}
	t.listener.left(t.chain)
	t.w.stats.tcpActive--
	t.rec.End = t.w.loop.Now() - t.started
	t.observed()
	t.listener.config.Load().log.push(t.w, &t.rec)
	if t.proxy.consumer == nil {
		return
	}
	t.rec.Consumer = t.proxy.consumer
	b := t.w.capture[:0]
	for range record.FixedCaptures {
		b = record.AppendCapture(b, nil)
	}
	b = accesslog.AppendCaptures(b, t.proxy.log.Captures(), nil, nil, nil)
	t.w.capture, t.rec.Captures = b, b
	t.w.ring.Push(&t.rec)
}
