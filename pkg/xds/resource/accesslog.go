// SPDX-License-Identifier: Apache-2.0

package resource

// AccessLog is one access log of a listener or connection manager.
type AccessLog struct {
	Name   string
	Filter *LogFilter // nil: everything
	// Exactly one of these is the destination.
	File *FileLog
	GRPC *GRPCLog
}

// FileLog writes to a file; /dev/stdout and /dev/stderr mean the process's own.
type FileLog struct {
	Path   string
	Format *LogFormat // nil: Envoy's default text format
}

// GRPCLog streams to envoy.service.accesslog.v3.AccessLogService.
type GRPCLog struct {
	Cluster     string
	LogName     string
	BufferBytes int // default 16 KiB
	FlushMillis int // default 1000
	ReqHeaders  []string
	RespHeaders []string
	TCP         bool
}

// LogFormat is a text or a JSON format.
type LogFormat struct {
	Text Format
	// JSON is set for json_format: fields in order of their names. A field is a
	// Format, a nested object or a list.
	JSON        []LogField
	OmitEmpty   bool
	ContentType string
}

// LogField is one field of a JSON format; exactly one of Format, Object, List
// and Literal (a JSON text) is set.
type LogField struct {
	Name    string
	Format  *Format
	Object  []LogField
	List    []LogField
	Literal string
}

// LogFilterKind is a kind of access log filter.
type LogFilterKind uint8

// The kinds.
const (
	FilterStatus LogFilterKind = iota
	FilterDuration
	FilterNotHealthCheck
	FilterTraceable
	FilterRuntime
	FilterAnd
	FilterOr
	FilterHeader
	FilterResponseFlag
)

// LogFilter selects what is logged.
type LogFilter struct {
	Kind    LogFilterKind
	Op      Comparison // FilterStatus, FilterDuration
	Value   uint32     // status, or milliseconds
	Runtime string
	Percent Percent // FilterRuntime
	Sub     []*LogFilter
	Header  *HeaderMatch
	Flags   []string // empty: any flag
}

// Comparison compares a number with a constant.
type Comparison uint8

// The operators.
const (
	OpEQ Comparison = iota
	OpGE
	OpLE
	OpNE
)

// Compare applies the operator: value OP constant.
func (c Comparison) Compare(value, constant uint32) bool {
	switch c {
	case OpEQ:
		return value == constant
	case OpGE:
		return value >= constant
	case OpLE:
		return value <= constant
	}
	return value != constant
}
