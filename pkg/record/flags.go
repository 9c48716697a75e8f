// SPDX-License-Identifier: Apache-2.0

package record

// Flags are response flags: why a response is what it is.
type Flags uint32

// The flags, by Envoy's short names.
const (
	UH    Flags = 1 << iota // no healthy upstream
	UF                      // upstream connection failure
	UO                      // upstream overflow (circuit breaking)
	NR                      // no route or no filter chain
	URX                     // retry limit or connect attempts exceeded
	NC                      // cluster not found
	DT                      // connection duration exceeded
	DC                      // downstream closed
	LH                      // local service failed its health check
	UT                      // upstream request timeout
	LR                      // local reset
	UR                      // upstream remote reset
	UC                      // upstream connection terminated
	DI                      // delay injected
	FI                      // abort injected
	RL                      // rate limited
	UAEX                    // unauthorized by external service
	RLSE                    // rate limit service error
	IH                      // invalid value of a strictly checked header
	SI                      // stream idle timeout
	DPE                     // downstream protocol error
	UPE                     // upstream protocol error
	UMSDR                   // max stream duration reached
	OM                      // overload manager
	DF                      // DNS failure
	DO                      // drop overload
	NFCF                    // configuration of a filter not found
)

var flagNames = [...]struct{ short, long string }{
	{"UH", "NoHealthyUpstream"}, {"UF", "UpstreamConnectionFailure"}, {"UO", "UpstreamOverflow"},
	{"NR", "NoRouteFound"}, {"URX", "UpstreamRetryLimitExceeded"}, {"NC", "NoClusterFound"},
	{"DT", "DurationTimeout"}, {"DC", "DownstreamConnectionTermination"}, {"LH", "FailedLocalHealthCheck"},
	{"UT", "UpstreamRequestTimeout"}, {"LR", "LocalReset"}, {"UR", "UpstreamRemoteReset"},
	{"UC", "UpstreamConnectionTermination"}, {"DI", "DelayInjected"}, {"FI", "FaultInjected"},
	{"RL", "RateLimited"}, {"UAEX", "UnauthorizedExternalService"}, {"RLSE", "RateLimitServiceError"},
	{"IH", "InvalidEnvoyRequestHeaders"}, {"SI", "StreamIdleTimeout"}, {"DPE", "DownstreamProtocolError"},
	{"UPE", "UpstreamProtocolError"}, {"UMSDR", "UpstreamMaxStreamDurationReached"},
	{"OM", "OverloadManagerTerminated"}, {"DF", "DnsResolutionFailed"}, {"DO", "DropOverload"},
	{"NFCF", "NoFilterConfigFound"},
}

// ParseFlag finds a flag by its short name.
func ParseFlag(short string) (Flags, bool) {
	for i := range flagNames {
		if flagNames[i].short == short {
			return 1 << i, true
		}
	}
	return 0, false
}

// AppendShort appends the short names, "-" for none.
func (f Flags) AppendShort(dst []byte) []byte { return f.append(dst, false) }

// AppendLong appends the long names, "-" for none.
func (f Flags) AppendLong(dst []byte) []byte { return f.append(dst, true) }

// String is the short names.
func (f Flags) String() string { return string(f.AppendShort(nil)) }

func (f Flags) append(dst []byte, long bool) []byte {
	if f == 0 {
		return append(dst, '-')
	}
	first := true
	for i := range flagNames {
		if f&(1<<i) == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if long {
			dst = append(dst, flagNames[i].long...)
		} else {
			dst = append(dst, flagNames[i].short...)
		}
	}
	return dst
}
