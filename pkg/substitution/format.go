// SPDX-License-Identifier: Apache-2.0

package substitution

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Format is a parsed format string: parts in order.
type Format struct {
	Parts []Part
}

// Part is literal text (Command is "") or one command.
type Part struct {
	Literal string
	Command string // upper case, as in the format
	Arg     string // inside the parentheses, before "?"; header names are in lower case
	Alt     string // after "?"
	HasArg  bool
	Max     int // from ":N", 0: no limit
}

// Constant reports whether the format has no command, and its text.
func (f *Format) Constant() (string, bool) {
	switch len(f.Parts) {
	case 0:
		return "", true
	case 1:
		return f.Parts[0].Literal, f.Parts[0].Command == ""
	}
	return "", false
}

// argument says what a command takes.
type argument uint8

const (
	none argument = iota
	optional
	required
	header // a header name with an optional alternative
)

// commands are those that can be evaluated. An unknown one is an error that
// names it.
var commands = map[string]argument{
	"REQ": header, "RESP": header, "TRAILER": header, "START_TIME": optional,
	"REQUEST_DURATION": none, "REQUEST_TX_DURATION": none, "RESPONSE_DURATION": none,
	"RESPONSE_TX_DURATION": none, "DURATION": none, "COMMON_DURATION": required,
	"PROTOCOL": none, "UPSTREAM_PROTOCOL": none, "RESPONSE_CODE": none, "RESPONSE_CODE_DETAILS": optional,
	"RESPONSE_FLAGS": none, "RESPONSE_FLAGS_LONG": none, "CONNECTION_TERMINATION_DETAILS": none,
	"BYTES_RECEIVED": none, "BYTES_SENT": none, "REQUEST_HEADERS_BYTES": none, "RESPONSE_HEADERS_BYTES": none,
	"RESPONSE_TRAILERS_BYTES": none, "DOWNSTREAM_WIRE_BYTES_SENT": none, "DOWNSTREAM_WIRE_BYTES_RECEIVED": none,
	"UPSTREAM_WIRE_BYTES_SENT": none, "UPSTREAM_WIRE_BYTES_RECEIVED": none, "UPSTREAM_HEADER_BYTES_SENT": none,
	"UPSTREAM_HEADER_BYTES_RECEIVED": none, "DOWNSTREAM_HEADER_BYTES_SENT": none, "DOWNSTREAM_HEADER_BYTES_RECEIVED": none,
	"UPSTREAM_HOST": none, "UPSTREAM_HOST_NAME": none, "UPSTREAM_CLUSTER": none, "UPSTREAM_CLUSTER_RAW": none,
	"UPSTREAM_LOCAL_ADDRESS": none, "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": none, "UPSTREAM_LOCAL_PORT": none,
	"UPSTREAM_REMOTE_ADDRESS": none, "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": none, "UPSTREAM_REMOTE_PORT": none,
	"UPSTREAM_TRANSPORT_FAILURE_REASON": none, "UPSTREAM_REQUEST_ATTEMPT_COUNT": none, "UPSTREAM_CONNECTION_ID": none,
	"DOWNSTREAM_REMOTE_ADDRESS": none, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": none, "DOWNSTREAM_REMOTE_PORT": none,
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS": none, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": none, "DOWNSTREAM_DIRECT_REMOTE_PORT": none,
	"DOWNSTREAM_LOCAL_ADDRESS": none, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": none, "DOWNSTREAM_LOCAL_PORT": none,
	"CONNECTION_ID": none, "STREAM_ID": none, "REQUESTED_SERVER_NAME": none, "ROUTE_NAME": none, "VIRTUAL_HOST_NAME": none,
	"VIRTUAL_CLUSTER_NAME": none, "TRACE_ID": none, "SPAN_ID": none, "HOSTNAME": none, "ENVIRONMENT": required,
	"METADATA": required, "DYNAMIC_METADATA": required, "UPSTREAM_METADATA": required, "CLUSTER_METADATA": required,
	"FILTER_STATE": required, "GRPC_STATUS": optional, "GRPC_STATUS_NUMBER": none, "LOCAL_REPLY_BODY": none,
	"DOWNSTREAM_TLS_VERSION": none, "DOWNSTREAM_TLS_CIPHER": none, "DOWNSTREAM_TRANSPORT_FAILURE_REASON": none,
	"DOWNSTREAM_PEER_URI_SAN": none, "DOWNSTREAM_PEER_DNS_SAN": none, "DOWNSTREAM_PEER_SUBJECT": none, "DOWNSTREAM_PEER_ISSUER": none,
	"DOWNSTREAM_PEER_SERIAL": none, "DOWNSTREAM_PEER_FINGERPRINT_256": none, "DOWNSTREAM_LOCAL_URI_SAN": none,
	"DOWNSTREAM_LOCAL_DNS_SAN": none, "DOWNSTREAM_LOCAL_SUBJECT": none,
	"FILTER_CHAIN_NAME": none, "ACCESS_LOG_TYPE": none, "UNIQUE_ID": none, "PATH": optional, "QUERY_PARAM": required,
}

// inHeaders are the commands that the data path evaluates over a running exchange,
// for header values and local replies.
var inHeaders = []string{
	"REQ", "RESP", "START_TIME", "DURATION", "PROTOCOL", "UPSTREAM_PROTOCOL", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS",
	"RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG", "BYTES_RECEIVED", "BYTES_SENT", "ROUTE_NAME", "VIRTUAL_HOST_NAME",
	"UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_HOST", "UPSTREAM_HOST_NAME",
	"UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_REMOTE_PORT", "UPSTREAM_LOCAL_ADDRESS",
	"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "UPSTREAM_LOCAL_PORT", "UPSTREAM_CONNECTION_ID", "STREAM_ID", "CONNECTION_ID",
	"TRACE_ID", "SPAN_ID", "HOSTNAME", "ENVIRONMENT", "FILTER_CHAIN_NAME", "LOCAL_REPLY_BODY",
	"DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT",
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_PORT",
	"DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT",
}

// ForHeaders reports, as an error that names it, a command that cannot be evaluated
// in a header value.
func (f *Format) ForHeaders() error {
	for i := range f.Parts {
		if c := f.Parts[i].Command; c != "" && !slices.Contains(inHeaders, c) {
			return fmt.Errorf("%%%s%% is not supported in headers", c)
		}
	}
	return nil
}

// Parse reads a format. "%%" is a percent sign. Errors name the command and its
// place (byte offset).
func Parse(s string) (Format, error) {
	var f Format
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			f.Parts = append(f.Parts, Part{Literal: lit.String()})
			lit.Reset()
		}
	}
	for i := 0; i < len(s); {
		c := s[i]
		if c != '%' {
			lit.WriteByte(c)
			i++
			continue
		}
		if i+1 < len(s) && s[i+1] == '%' {
			lit.WriteByte('%')
			i += 2
			continue
		}
		p, n, err := parseCommand(s[i:])
		if err != nil {
			return Format{}, fmt.Errorf("at byte %d: %w", i, err)
		}
		flush()
		f.Parts = append(f.Parts, p)
		i += n
	}
	flush()
	return f, nil
}

// parseCommand reads "%NAME(arg):max%" at the start of s.
func parseCommand(s string) (Part, int, error) {
	i := 1
	for i < len(s) && (s[i] >= 'A' && s[i] <= 'Z' || s[i] == '_' || s[i] >= '0' && s[i] <= '9') {
		i++
	}
	p := Part{Command: s[1:i]}
	kind, known := commands[p.Command]
	if p.Command == "" {
		return p, 0, fmt.Errorf("a percent sign must start a command or be doubled (%%%%)")
	}
	if !known {
		return p, 0, fmt.Errorf("unknown command %%%s%%", p.Command)
	}
	if i < len(s) && s[i] == '(' {
		end := strings.IndexByte(s[i:], ')')
		// START_TIME's format may hold no parenthesis; all others neither.
		if end < 0 {
			return p, 0, fmt.Errorf("%%%s(: the parenthesis is not closed", p.Command)
		}
		p.Arg, p.HasArg = s[i+1:i+end], true
		i += end + 1
	}
	if i < len(s) && s[i] == ':' {
		j := i + 1
		for j < len(s) && s[j] >= '0' && s[j] <= '9' {
			j++
		}
		n, err := strconv.Atoi(s[i+1 : j])
		if err != nil {
			return p, 0, fmt.Errorf("%%%s%%: the length after \":\" is not a number", p.Command)
		}
		p.Max = n
		i = j
	}
	if i >= len(s) || s[i] != '%' {
		return p, 0, fmt.Errorf("%%%s: the command does not end with a percent sign", p.Command)
	}
	return p, i + 1, check(&p, kind)
}

func check(p *Part, kind argument) error {
	switch {
	case kind == none && p.HasArg:
		return fmt.Errorf("%%%s%% takes no argument", p.Command)
	case kind == required && p.Arg == "":
		return fmt.Errorf("%%%s%% needs an argument in parentheses", p.Command)
	case kind == header:
		if p.Arg == "" {
			return fmt.Errorf("%%%s%% needs a header name in parentheses", p.Command)
		}
		name, alt, _ := strings.Cut(p.Arg, "?")
		p.Arg, p.Alt = strings.ToLower(name), strings.ToLower(alt)
		if p.Arg == "" {
			return fmt.Errorf("%%%s%%: the header name is empty", p.Command)
		}
	}
	return nil
}
