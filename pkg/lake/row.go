// SPDX-License-Identifier: Apache-2.0

package lake

import (
	"encoding/hex"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

// Row is one tapped exchange, or one tapped connection, as the files hold it: the
// schema of the lake. A connection's protocol is TCP; its bodies are what each side sent.
// Columns are only ever added. Node, Boot, Sequence and Position identify a row.
type Row struct {
	Time      int64  `parquet:"time,timestamp(microsecond)"` // begin of the exchange
	Node      string `parquet:"node,dict"`
	Boot      string `parquet:"boot,dict"`
	Sequence  int64  `parquet:"sequence"`
	Position  int32  `parquet:"position"` // in the batch
	Service   string `parquet:"service,dict"`
	Direction string `parquet:"direction,dict"`
	Tap       string `parquet:"tap,dict"`
	ID        string `parquet:"id"`

	Method    string `parquet:"method,dict"`
	Scheme    string `parquet:"scheme,dict"`
	Authority string `parquet:"authority,dict"`
	Path      string `parquet:"path"`
	Protocol  string `parquet:"protocol,dict"`
	Status    int32  `parquet:"status"`
	Flags     string `parquet:"flags,dict"`
	Details   string `parquet:"details,dict"`
	Attempts  int32  `parquet:"attempts"`

	DurationMicros         int64  `parquet:"duration_us"`
	RequestEndMicros       *int64 `parquet:"request_end_us,optional"`
	UpstreamResponseMicros *int64 `parquet:"upstream_response_us,optional"`
	ResponseStartMicros    *int64 `parquet:"response_start_us,optional"`

	Route       string `parquet:"route,dict"`
	VirtualHost string `parquet:"virtual_host,dict"`
	Cluster     string `parquet:"cluster,dict"`
	Upstream    string `parquet:"upstream,dict"`
	Remote      string `parquet:"remote"`
	Local       string `parquet:"local,dict"`
	TraceID     string `parquet:"trace_id"`
	SpanID      string `parquet:"span_id"`
	RequestID   string `parquet:"request_id"`

	RequestHeaders  []Header `parquet:"request_headers,list"`
	ResponseHeaders []Header `parquet:"response_headers,list"`

	RequestBody       []byte `parquet:"request_body,optional"`
	ResponseBody      []byte `parquet:"response_body,optional"`
	RequestBytes      int64  `parquet:"request_bytes"`
	ResponseBytes     int64  `parquet:"response_bytes"`
	RequestTruncated  bool   `parquet:"request_truncated"`
	ResponseTruncated bool   `parquet:"response_truncated"`
	Redacted          int32  `parquet:"redacted"`

	ConnectionID     int64  `parquet:"connection_id"`
	ServerName       string `parquet:"server_name,dict"`
	ALPN             string `parquet:"alpn,dict"`
	Peer             string `parquet:"peer,dict"`
	TransportFailure string `parquet:"transport_failure,dict"`
}

// Header is one header field.
type Header struct {
	Name  string `parquet:"name" json:"name"`
	Value string `parquet:"value" json:"value"`
}

// fill makes a row of a record. Text columns must be UTF-8; bytes that are none
// are replaced, in bodies they stay.
func (r *Row) fill(t *tap.Record) {
	*r = Row{
		Time: t.Start / 1000, Service: t.Service, Direction: t.Direction, Tap: t.Tap,
		Method: text(t.Method), Scheme: text(t.Scheme), Authority: text(t.Authority), Path: text(t.Path),
		Protocol: t.Protocol, Status: int32(t.Status), Flags: t.Flags, Details: t.Details, Attempts: int32(t.Attempts),
		DurationMicros: max(t.Duration, 0) / 1000, RequestEndMicros: micros(t.RequestEnd),
		UpstreamResponseMicros: micros(t.UpstreamResponse), ResponseStartMicros: micros(t.ResponseStart),
		Route: t.Route, VirtualHost: t.VirtualHost, Cluster: t.Cluster, Upstream: t.Upstream,
		Remote: t.Remote, Local: t.Local, TraceID: t.TraceID, SpanID: t.SpanID, RequestID: text(t.RequestID),
		RequestHeaders: headers(t.RequestHeaders), ResponseHeaders: headers(t.ResponseHeaders),
		RequestBody: t.RequestBody, ResponseBody: t.ResponseBody,
		RequestBytes: int64(t.RequestBytes), ResponseBytes: int64(t.ResponseBytes),
		RequestTruncated: t.RequestTruncated, ResponseTruncated: t.ResponseTruncated, Redacted: int32(t.Redacted),
		ConnectionID: int64(t.ConnectionID), ServerName: text(t.ServerName), ALPN: text(t.ALPN), Peer: text(t.Peer), TransportFailure: t.TransportFailure,
	}
	if t.ID != [16]byte{} {
		r.ID = hex.EncodeToString(t.ID[:])
	}
}

func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

func micros(n int64) *int64 {
	if n < 0 {
		return nil
	}
	n /= 1000
	return &n
}

func headers(in []tap.Header) []Header {
	out := make([]Header, len(in))
	for i, h := range in {
		out[i] = Header{text(h.Name), text(h.Value)}
	}
	return out
}
