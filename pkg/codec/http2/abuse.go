// SPDX-License-Identifier: Apache-2.0

package http2

// budget is how often a peer may still do something that costs it little. It is
// refilled by time and by the progress of the connection, up to its burst, and
// looked at only when it is spent.
type budget struct {
	at       int64
	progress uint32
	level    int32
}

// rate is what refills a budget.
type rate struct{ perSecond, perProgress int32 }

// The rates. Bursts are in Limits; what is spent beyond is an attack:
//
//	resets         rapid reset (CVE-2023-44487, CVE-2019-9514): streams that the
//	               peer resets in their first second; and MadeYouReset
//	               (CVE-2025-8671): streams that break a rule, so that this side
//	               must reset them. A stream that ends well gives one back.
//	settings       SETTINGS flood (CVE-2019-9515)
//	pings          PING flood (CVE-2019-9512). gRPC sends one for each round trip
//	               in which data came: a frame that carries something gives one back.
//	priorities     reprioritisation (CVE-2019-9513)
//	emptyData      empty frames (CVE-2019-9518)
//	windowUpdates  WINDOW_UPDATE of nothing sent (data dribble, CVE-2019-9511)
//	unknownFrames  frames without meaning, and for streams long gone; not data that
//	               was under way when this side reset its stream
//
// Further: CONTINUATION floods (CVE-2024-27919, CVE-2024-30255, CVE-2023-45288)
// are bounded by the frames and bytes of a block (see continuation); empty
// header names (CVE-2019-9516) are no tokens; HPACK bombs and cookie crumbs
// (CVE-2026-47774) by the decoded list; peers that do not read what they cause
// (CVE-2019-9517) by the queues, see queued.
var (
	resetRate        = rate{perSecond: 100, perProgress: 1}
	settingsRate     = rate{perSecond: 10}
	pingRate         = rate{perSecond: 100, perProgress: 1}
	priorityRate     = rate{perSecond: 100, perProgress: 4}
	emptyDataRate    = rate{perSecond: 10}
	windowUpdateRate = rate{perSecond: 100, perProgress: 1}
	unknownFrameRate = rate{perSecond: 100, perProgress: 1}
)

// What one frame sent, and one stream opened, allow of WINDOW_UPDATE frames.
const (
	updatesPerFrame  = 10
	updatesPerStream = 4
)

// earlyReset is the age up to which a stream that its peer resets counts: work
// was begun for nothing.
const earlyReset = int64(1e9)

const second = int64(1e9)

// spend takes one, and reports whether there was one.
func (b *budget) spend(now int64, progress uint32, r rate, burst int) bool {
	gain := int64(progress-b.progress) * int64(r.perProgress)
	b.progress = progress
	if elapsed := min(now-b.at, 1000*second); elapsed > 0 {
		if timed := elapsed * int64(r.perSecond) / second; timed > 0 {
			gain += timed
			b.at = now
		}
	}
	b.level = int32(min(int64(b.level)+gain, int64(burst)))
	if b.level <= 0 {
		return false
	}
	b.level--
	return true
}

// budgets are those of a connection.
type budgets struct {
	resets, settings, pings, priorities, emptyData, windowUpdates, unknownFrames budget

	completed     uint32 // streams that ended well
	useful        uint32 // frames in that carried something
	updatesEarned uint32
}

func (b *budgets) init(l *Limits) {
	b.resets.level = int32(l.Resets)
	b.settings.level = int32(l.Settings)
	b.pings.level = int32(l.Pings)
	b.priorities.level = int32(l.Priorities)
	b.emptyData.level = int32(l.EmptyData)
	b.windowUpdates.level = int32(l.WindowUpdates)
	b.unknownFrames.level = int32(l.UnknownFrames)
}

func (c *Conn) spendReset() bool {
	return c.resets.spend(c.now, c.completed, resetRate, c.lim.Resets)
}

// idleFrame counts a frame that means nothing.
func (c *Conn) idleFrame() error {
	if !c.unknownFrames.spend(c.now, c.useful, unknownFrameRate, c.lim.UnknownFrames) {
		return c.fail(errUnknownFrames)
	}
	return nil
}

// queued counts a control frame that was put into pending, and bounds how many
// of them a peer can cause that does not read.
func (c *Conn) queued() error {
	c.controlFrames++
	if c.controlFrames > c.lim.MaxOutboundControlFrames {
		return c.fail(errControlQueue)
	}
	return nil
}
