// SPDX-License-Identifier: Apache-2.0

package http2

// Underscores says what becomes of fields whose name holds an underscore: some
// servers take "_" and "-" for the same, so such a name can pass by a matcher.
type Underscores uint8

// The choices.
const (
	AllowUnderscores  Underscores = iota // passed on
	RejectUnderscores                    // the message is refused
	DropUnderscores                      // the field is removed
)

// Limits bound what a peer may make the proxy hold or do. A value of zero is its
// default.
type Limits struct {
	// MaxConcurrentStreams is what a server allows its peer, and the most that
	// a client opens whatever its peer allows; 100.
	MaxConcurrentStreams uint32
	// InitialStreamWindow is the bytes of a body that the peer may send ahead of
	// Consumed, 64 KiB: times the streams, all that one connection can have held.
	// InitialConnWindow is what may be under way in all streams, 1 MiB and at least
	// 65 535; it is credited as it comes.
	InitialStreamWindow, InitialConnWindow uint32
	MaxFrameSize                           uint32 // payload of a frame taken; 16 KiB, at most 1 MiB
	HeaderTableSize                        uint32 // dynamic table of HPACK, each way; 4 KiB, at most 64 KiB

	// HeadBytes and HeaderCount bound a decoded header list: the bytes of names
	// and values with 32 for each field (RFC 9113 §6.5.2), and the fields;
	// 60 KiB and 100. The crumbs of a cookie count before they are joined.
	HeadBytes, HeaderCount int
	Underscores            Underscores

	// MaxOutboundControlFrames is how many answers to a peer's frames (PING and
	// SETTINGS acknowledgements, RST_STREAM) may be pending: one that asks and
	// does not read is closed; 1 000. MaxOutboundFrames is the same for frames
	// of any kind that wait here, pieces of bodies included; 10 000.
	MaxOutboundFrames, MaxOutboundControlFrames int

	// The budgets of frames that cost the peer little. Each is the burst that is
	// taken at once; abuse.go says what refills them and which attack they answer.
	Resets        int // streams the peer resets early, or makes this side reset; 200
	Settings      int // 100
	Pings         int // 1 000
	Priorities    int // 1 000
	EmptyData     int // DATA without data that does not end its stream; 100
	WindowUpdates int // 2 000
	UnknownFrames int // frames of unknown type, or for streams that are gone, but what was under way; 1 000
	Continuations int // CONTINUATION frames in one header block; 8

	// AllowConnect takes extended CONNECT from a client (RFC 8441).
	AllowConnect bool
}

// The defaults.
const (
	DefaultMaxConcurrentStreams     = 100
	DefaultInitialStreamWindow      = 64 << 10
	DefaultInitialConnWindow        = 1 << 20
	DefaultMaxFrameSize             = 16 << 10
	DefaultHeaderTableSize          = 4 << 10
	DefaultHeadBytes                = 60 << 10
	DefaultHeaderCount              = 100
	DefaultMaxOutboundFrames        = 10_000
	DefaultMaxOutboundControlFrames = 1_000
	DefaultResets                   = 200
	DefaultSettings                 = 100
	DefaultPings                    = 1_000
	DefaultPriorities               = 1_000
	DefaultEmptyData                = 100
	DefaultWindowUpdates            = 2_000
	DefaultUnknownFrames            = 1_000
	DefaultContinuations            = 8
)

// MaxPerCall is how many bytes of waiting bodies one AppendPending appends, give
// or take a frame, so that one connection does not hold up its loop.
const MaxPerCall = 256 << 10

const (
	maxInformational = 16 // responses before the final one
	maxMethodBytes   = 32 // longer than any registered method
	maxTargetBytes   = 8 << 10
	maxWindow        = 1<<31 - 1
	maxStreamID      = 1<<31 - 1
	defaultWindow    = 65535 // of a peer's before its SETTINGS (RFC 9113 §6.9.2)
	sendFrameSize    = 16 << 10
)

func orDefault[T int | uint32](n, def, lowest, highest T) T {
	if n <= 0 {
		n = def
	}
	return min(max(n, lowest), highest)
}

// complete puts defaults and bounds in.
func (l Limits) complete() Limits {
	l.MaxConcurrentStreams = orDefault(l.MaxConcurrentStreams, DefaultMaxConcurrentStreams, 1, 1<<20)
	l.InitialStreamWindow = orDefault(l.InitialStreamWindow, DefaultInitialStreamWindow, 1, maxWindow)
	l.InitialConnWindow = orDefault(l.InitialConnWindow, DefaultInitialConnWindow, defaultWindow, maxWindow)
	l.MaxFrameSize = orDefault(l.MaxFrameSize, DefaultMaxFrameSize, DefaultMaxFrameSize, 1<<20)
	l.HeaderTableSize = orDefault(l.HeaderTableSize, DefaultHeaderTableSize, 0, 64<<10)
	l.HeadBytes = orDefault(l.HeadBytes, DefaultHeadBytes, 1, 1<<24)
	l.HeaderCount = orDefault(l.HeaderCount, DefaultHeaderCount, 1, 1<<16)
	l.MaxOutboundFrames = orDefault(l.MaxOutboundFrames, DefaultMaxOutboundFrames, 1, 1<<24)
	l.MaxOutboundControlFrames = orDefault(l.MaxOutboundControlFrames, DefaultMaxOutboundControlFrames, 1, 1<<24)
	l.Resets = orDefault(l.Resets, DefaultResets, 1, 1<<24)
	l.Settings = orDefault(l.Settings, DefaultSettings, 1, 1<<24)
	l.Pings = orDefault(l.Pings, DefaultPings, 1, 1<<24)
	l.Priorities = orDefault(l.Priorities, DefaultPriorities, 1, 1<<24)
	l.EmptyData = orDefault(l.EmptyData, DefaultEmptyData, 1, 1<<24)
	l.WindowUpdates = orDefault(l.WindowUpdates, DefaultWindowUpdates, 1, 1<<24)
	l.UnknownFrames = orDefault(l.UnknownFrames, DefaultUnknownFrames, 1, 1<<24)
	l.Continuations = orDefault(l.Continuations, DefaultContinuations, 1, 1<<10)
	return l
}
