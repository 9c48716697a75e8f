// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"fmt"
	"os"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/substitution"
)

// op is what a command evaluates.
type op uint8

const (
	opNone  op = iota
	opUnset    // never has a value here
	opConst
	opCapture
	opGRPCStatus
	opGRPCNumber
	opPath
	opQuery
	opStartTime
	opSpan // time between two points, in a unit
	opProtocol
	opUpstreamProtocol
	opStatus
	opDetails
	opFlags
	opFlagsLong
	opCloseDetails
	opBytesReceived
	opBytesSent
	opRequestHeaderBytes
	opResponseHeaderBytes
	opWireSent
	opWireReceived
	opUpstreamWireSent
	opUpstreamWireReceived
	opUpstreamHost
	opUpstreamName
	opCluster
	opUpstreamLocal
	opTransportReason
	opAttempts
	opUpstreamConnection
	opRemote
	opDirectRemote
	opLocal
	opConnection
	opStreamID
	opRoute
	opVirtualHost
	opFilterChain
	opTraceID
	opSpanID
	opLogType
	opSecurity
)

// part is which part of an address is wanted.
type part uint8

const (
	whole part = iota
	host
	port
)

// point is a moment of an exchange.
type point uint8

const (
	atStart point = iota
	atRequestEnd
	atUpstreamRequest
	atUpstreamResponse
	atResponseStart
	atEnd
	atNever // a moment that records do not keep
)

// command is a compiled substitution command.
type command struct {
	op       op
	part     part
	from, to point
	unit     int64 // nanoseconds
	index    int   // of a capture
	max      int   // bytes of a text value, 0: no limit
	text     string
	spaces   bool // RESPONSE_CODE_DETAILS keeps its spaces
	query    bool // PATH keeps its query
	time     *timeFormat
}

// plain are the commands without argument.
var plain = map[string]command{
	"REQUEST_DURATION":     {op: opSpan, from: atStart, to: atRequestEnd, unit: 1e6},
	"REQUEST_TX_DURATION":  {op: opUnset},
	"RESPONSE_DURATION":    {op: opSpan, from: atStart, to: atUpstreamResponse, unit: 1e6},
	"RESPONSE_TX_DURATION": {op: opSpan, from: atUpstreamResponse, to: atEnd, unit: 1e6},
	"DURATION":             {op: opSpan, from: atStart, to: atEnd, unit: 1e6},
	"PROTOCOL":             {op: opProtocol}, "UPSTREAM_PROTOCOL": {op: opUpstreamProtocol},
	"RESPONSE_CODE":                     {op: opStatus},
	"RESPONSE_FLAGS":                    {op: opFlags},
	"RESPONSE_FLAGS_LONG":               {op: opFlagsLong},
	"CONNECTION_TERMINATION_DETAILS":    {op: opCloseDetails},
	"BYTES_RECEIVED":                    {op: opBytesReceived},
	"BYTES_SENT":                        {op: opBytesSent},
	"REQUEST_HEADERS_BYTES":             {op: opRequestHeaderBytes},
	"DOWNSTREAM_HEADER_BYTES_RECEIVED":  {op: opRequestHeaderBytes},
	"RESPONSE_HEADERS_BYTES":            {op: opResponseHeaderBytes},
	"DOWNSTREAM_HEADER_BYTES_SENT":      {op: opResponseHeaderBytes},
	"DOWNSTREAM_WIRE_BYTES_SENT":        {op: opWireSent},
	"DOWNSTREAM_WIRE_BYTES_RECEIVED":    {op: opWireReceived},
	"UPSTREAM_WIRE_BYTES_SENT":          {op: opUpstreamWireSent},
	"UPSTREAM_WIRE_BYTES_RECEIVED":      {op: opUpstreamWireReceived},
	"UPSTREAM_HOST":                     {op: opUpstreamHost},
	"UPSTREAM_HOST_NAME":                {op: opUpstreamName},
	"UPSTREAM_CLUSTER":                  {op: opCluster},
	"UPSTREAM_CLUSTER_RAW":              {op: opCluster},
	"UPSTREAM_LOCAL_ADDRESS":            {op: opUpstreamLocal},
	"UPSTREAM_REMOTE_ADDRESS":           {op: opUpstreamHost},
	"UPSTREAM_TRANSPORT_FAILURE_REASON": {op: opTransportReason},
	"UPSTREAM_REQUEST_ATTEMPT_COUNT":    {op: opAttempts},
	"UPSTREAM_CONNECTION_ID":            {op: opUpstreamConnection},
	"DOWNSTREAM_REMOTE_ADDRESS":         {op: opRemote},
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":  {op: opDirectRemote},
	"DOWNSTREAM_LOCAL_ADDRESS":          {op: opLocal},
	"CONNECTION_ID":                     {op: opConnection},
	"STREAM_ID":                         {op: opStreamID},
	"UNIQUE_ID":                         {op: opStreamID},
	"ROUTE_NAME":                        {op: opRoute},
	"VIRTUAL_HOST_NAME":                 {op: opVirtualHost},
	"FILTER_CHAIN_NAME":                 {op: opFilterChain},
	"TRACE_ID":                          {op: opTraceID},
	"SPAN_ID":                           {op: opSpanID},
	"ACCESS_LOG_TYPE":                   {op: opLogType},

	"DOWNSTREAM_TLS_VERSION":              {op: opSecurity, index: tlsVersion},
	"DOWNSTREAM_TLS_CIPHER":               {op: opSecurity, index: tlsCipher},
	"DOWNSTREAM_TRANSPORT_FAILURE_REASON": {op: opSecurity, index: tlsFailure},
	"REQUESTED_SERVER_NAME":               {op: opSecurity, index: tlsServerName},
	"DOWNSTREAM_PEER_URI_SAN":             {op: opSecurity, index: tlsPeerURI},
	"DOWNSTREAM_PEER_DNS_SAN":             {op: opSecurity, index: tlsPeerDNS},
	"DOWNSTREAM_PEER_SUBJECT":             {op: opSecurity, index: tlsPeerSubject},
	"DOWNSTREAM_PEER_ISSUER":              {op: opSecurity, index: tlsPeerIssuer},
	"DOWNSTREAM_PEER_SERIAL":              {op: opSecurity, index: tlsPeerSerial},
	"DOWNSTREAM_PEER_FINGERPRINT_256":     {op: opSecurity, index: tlsPeerFingerprint},
	"DOWNSTREAM_LOCAL_URI_SAN":            {op: opSecurity, index: tlsLocalURI},
	"DOWNSTREAM_LOCAL_DNS_SAN":            {op: opSecurity, index: tlsLocalDNS},
	"DOWNSTREAM_LOCAL_SUBJECT":            {op: opSecurity, index: tlsLocalSubject},
}

// addresses are the commands that exist with the suffixes of a part too.
var addresses = []struct {
	prefix string
	op     op
}{
	{"UPSTREAM_LOCAL", opUpstreamLocal}, {"UPSTREAM_REMOTE", opUpstreamHost},
	{"DOWNSTREAM_REMOTE", opRemote}, {"DOWNSTREAM_DIRECT_REMOTE", opDirectRemote},
	{"DOWNSTREAM_LOCAL", opLocal},
}

// unset are commands whose values this proxy does not have yet: they are
// accepted, so that formats made for Envoy work, and never set.
var unset = map[string]bool{
	"METADATA": true, "DYNAMIC_METADATA": true, "UPSTREAM_METADATA": true, "CLUSTER_METADATA": true,
	"FILTER_STATE": true, "VIRTUAL_CLUSTER_NAME": true, "LOCAL_REPLY_BODY": true,
	"RESPONSE_TRAILERS_BYTES": true, "UPSTREAM_HEADER_BYTES_SENT": true, "UPSTREAM_HEADER_BYTES_RECEIVED": true,
}

func (c *compiler) command(p *substitution.Part) (command, error) {
	cmd, err := c.lookup(p)
	cmd.max = p.Max
	return cmd, err
}

func (c *compiler) lookup(p *substitution.Part) (command, error) {
	if cmd, ok := plain[p.Command]; ok {
		return cmd, nil
	}
	for _, a := range addresses {
		switch p.Command {
		case a.prefix + "_ADDRESS_WITHOUT_PORT":
			return command{op: a.op, part: host}, nil
		case a.prefix + "_PORT":
			return command{op: a.op, part: port}, nil
		}
	}
	if unset[p.Command] {
		return command{op: opUnset}, nil
	}
	switch p.Command {
	case "REQ":
		return command{op: opCapture, index: c.capture(Capture{Kind: ReqHeader, Name: p.Arg, Alt: p.Alt})}, nil
	case "RESP":
		return command{op: opCapture, index: c.capture(Capture{Kind: RespHeader, Name: p.Arg, Alt: p.Alt})}, nil
	case "TRAILER":
		return command{op: opCapture, index: c.capture(Capture{Kind: RespTrailer, Name: p.Arg, Alt: p.Alt})}, nil
	case "GRPC_STATUS", "GRPC_STATUS_NUMBER":
		return c.grpcStatus(p)
	case "START_TIME":
		return startTime(p)
	case "COMMON_DURATION":
		return commonDuration(p)
	case "RESPONSE_CODE_DETAILS":
		if p.HasArg && p.Arg != "ALLOW_WHITESPACES" {
			return command{}, fmt.Errorf("%%RESPONSE_CODE_DETAILS%%: unknown argument %q (known: ALLOW_WHITESPACES)", p.Arg)
		}
		return command{op: opDetails, spaces: p.HasArg}, nil
	case "HOSTNAME":
		return constant(c.opts.Hostname), nil
	case "ENVIRONMENT":
		look := c.opts.Env
		if look == nil {
			look = os.LookupEnv
		}
		v, _ := look(p.Arg)
		return constant(v), nil
	case "PATH":
		return pathCommand(p)
	case "QUERY_PARAM":
		return command{op: opQuery, text: p.Arg}, nil
	}
	return command{}, fmt.Errorf("%%%s%% is not supported in access logs", p.Command)
}

func constant(v string) command {
	if v == "" {
		return command{op: opUnset}
	}
	return command{op: opConst, text: v}
}

func (c *compiler) grpcStatus(p *substitution.Part) (command, error) {
	cmd := command{op: opGRPCStatus, index: c.capture(Capture{Kind: GRPCStatus, Name: "grpc-status"})}
	if p.Command == "GRPC_STATUS_NUMBER" {
		cmd.op = opGRPCNumber
		return cmd, nil
	}
	switch p.Arg {
	case "", "CAMEL_STRING":
	case "SNAKE_STRING":
		cmd.text = p.Arg
	case "NUMBER":
		cmd.op = opGRPCNumber
	default:
		return command{}, fmt.Errorf("%%GRPC_STATUS%%: unknown argument %q (known: CAMEL_STRING, SNAKE_STRING, NUMBER)", p.Arg)
	}
	return cmd, nil
}

func startTime(p *substitution.Part) (command, error) {
	format := p.Arg
	if format == "" {
		format = defaultTimeFormat
	}
	t, err := compileTime(format)
	if err != nil {
		return command{}, fmt.Errorf("%%START_TIME%%: %w", err)
	}
	return command{op: opStartTime, time: t}, nil
}

// points are the names that COMMON_DURATION takes. Those that records do not
// keep give no value.
var points = map[string]point{
	"DS_RX_BEG": atStart, "DS_RX_END": atRequestEnd, "US_TX_BEG": atUpstreamRequest, "US_RX_BEG": atUpstreamResponse,
	"DS_TX_BEG": atResponseStart, "DS_TX_END": atEnd,
	"US_CX_BEG": atNever, "US_CX_END": atNever, "US_HS_END": atNever, "US_TX_END": atNever, "US_RX_END": atNever,
	"US_RX_BODY_BEG": atNever, "DS_CX_BEG": atNever,
}

var units = map[string]int64{"ms": 1e6, "us": 1e3, "ns": 1}

func commonDuration(p *substitution.Part) (command, error) {
	args := strings.Split(p.Arg, ":")
	if len(args) == 2 {
		args = append(args, "ms")
	}
	if len(args) != 3 {
		return command{}, fmt.Errorf("%%COMMON_DURATION%%: want START:END:UNIT, got %q", p.Arg)
	}
	from, ok1 := points[args[0]]
	to, ok2 := points[args[1]]
	unit, ok3 := units[args[2]]
	switch {
	case !ok1:
		return command{}, fmt.Errorf("%%COMMON_DURATION%%: unknown time point %q", args[0])
	case !ok2:
		return command{}, fmt.Errorf("%%COMMON_DURATION%%: unknown time point %q", args[1])
	case !ok3:
		return command{}, fmt.Errorf("%%COMMON_DURATION%%: unknown unit %q (known: ms, us, ns)", args[2])
	}
	return command{op: opSpan, from: from, to: to, unit: unit}, nil
}

// pathCommand is %PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)%. Records keep the path as
// received, which serves all three.
func pathCommand(p *substitution.Part) (command, error) {
	query, from, _ := strings.Cut(p.Arg, ":")
	cmd := command{op: opPath, query: true}
	switch query {
	case "", "WQ":
	case "NQ":
		cmd.query = false
	default:
		return command{}, fmt.Errorf("%%PATH%%: unknown argument %q (known: WQ, NQ)", query)
	}
	switch from {
	case "", "ORIG", "PATH", "ORIG_OR_PATH":
	default:
		return command{}, fmt.Errorf("%%PATH%%: unknown source %q (known: ORIG, PATH, ORIG_OR_PATH)", from)
	}
	return cmd, nil
}
