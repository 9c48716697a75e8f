// SPDX-License-Identifier: Apache-2.0

package http1

// Underscores says what becomes of fields whose name holds an underscore: some
// servers take "_" and "-" for the same, so such a name can pass by a matcher.
type Underscores uint8

// The choices.
const (
	AllowUnderscores  Underscores = iota // passed on
	RejectUnderscores                    // the message is refused
	DropUnderscores                      // the field is removed
)

// Limits bound what a peer may make the proxy hold or look at. A value of zero
// is its default; one below zero is taken for zero.
type Limits struct {
	HeadBytes     int   // start line and fields with all line ends; 60 KiB
	HeaderCount   int   // fields of a head, and of a trailer section; 100
	TargetBytes   int   // request target; 8 KiB
	ChunkExtBytes int   // chunk extensions of one body, all chunks together; 16 KiB
	TrailerBytes  int   // trailer section; default: what the head left of HeadBytes
	BodyBytes     int64 // body of a request; default: no limit
	Underscores   Underscores
}

// The defaults.
const (
	DefaultHeadBytes     = 60 << 10
	DefaultHeaderCount   = 100
	DefaultTargetBytes   = 8 << 10
	DefaultChunkExtBytes = 16 << 10
)

const (
	maxMethodBytes   = 32 // longer than any registered method
	maxBlankLines    = 2  // before a request line, RFC 9112 §2.2
	maxInformational = 16 // responses before the final one
	maxNominations   = 32 // names in the Connection fields of one head
	minTrailerBytes  = 1 << 10
)

// limits is Limits as a decoder keeps it.
type limits struct {
	body                                   int64
	head, count, target, chunkExt, trailer uint32
	underscores                            Underscores
}

func (l Limits) compact() limits {
	return limits{
		body:        l.BodyBytes,
		head:        orDefault(l.HeadBytes, DefaultHeadBytes),
		count:       orDefault(l.HeaderCount, DefaultHeaderCount),
		target:      orDefault(l.TargetBytes, DefaultTargetBytes),
		chunkExt:    orDefault(l.ChunkExtBytes, DefaultChunkExtBytes),
		trailer:     orDefault(l.TrailerBytes, 0),
		underscores: l.Underscores,
	}
}

func orDefault(n, def int) uint32 {
	if n <= 0 {
		n = def
	}
	return uint32(min(n, 1<<30))
}
