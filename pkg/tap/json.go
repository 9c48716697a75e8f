// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// recordJSON is a record as one line of JSON. Bodies are text where they are
// UTF-8, base64 otherwise.
type recordJSON struct {
	Time             string       `json:"time"`
	Tap              string       `json:"tap,omitempty"`
	ID               string       `json:"id,omitempty"`
	Node             string       `json:"node,omitempty"`
	Service          string       `json:"service,omitempty"`
	Direction        string       `json:"direction,omitempty"`
	Method           string       `json:"method,omitempty"`
	Scheme           string       `json:"scheme,omitempty"`
	Authority        string       `json:"authority,omitempty"`
	Path             string       `json:"path,omitempty"`
	Protocol         string       `json:"protocol,omitempty"`
	Status           uint16       `json:"status,omitempty"`
	Flags            string       `json:"flags,omitempty"`
	Details          string       `json:"details,omitempty"`
	Attempts         uint16       `json:"attempts,omitempty"`
	DurationMicros   int64        `json:"durationMicros"`
	Route            string       `json:"route,omitempty"`
	VirtualHost      string       `json:"virtualHost,omitempty"`
	Cluster          string       `json:"cluster,omitempty"`
	Upstream         string       `json:"upstream,omitempty"`
	Remote           string       `json:"remote,omitempty"`
	Local            string       `json:"local,omitempty"`
	TransportFailure string       `json:"transportFailure,omitempty"`
	ConnectionID     uint64       `json:"connectionId,omitempty"`
	ServerName       string       `json:"serverName,omitempty"`
	ALPN             string       `json:"alpn,omitempty"`
	Peer             string       `json:"peer,omitempty"`
	TraceID          string       `json:"traceId,omitempty"`
	SpanID           string       `json:"spanId,omitempty"`
	RequestID        string       `json:"requestId,omitempty"`
	RequestHeaders   []headerJSON `json:"requestHeaders,omitempty"`
	ResponseHeaders  []headerJSON `json:"responseHeaders,omitempty"`
	RequestBody      string       `json:"requestBody,omitempty"`
	RequestBody64    []byte       `json:"requestBodyBase64,omitempty"`
	ResponseBody     string       `json:"responseBody,omitempty"`
	ResponseBody64   []byte       `json:"responseBodyBase64,omitempty"`
	RequestBytes     uint64       `json:"requestBytes"`
	ResponseBytes    uint64       `json:"responseBytes"`
	RequestTruncated bool         `json:"requestTruncated,omitempty"`
	ResponseTruncate bool         `json:"responseTruncated,omitempty"`
	Redacted         uint32       `json:"redacted,omitempty"`
}

type headerJSON struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// AppendJSON appends r as one line of JSON with its line end.
func (r *Record) AppendJSON(dst []byte) []byte {
	j := recordJSON{
		Time: time.Unix(0, r.Start).UTC().Format(time.RFC3339Nano),
		Tap:  r.Tap, Node: r.Node, Service: r.Service, Direction: r.Direction,
		Method: string(r.Method), Scheme: string(r.Scheme), Authority: string(r.Authority), Path: string(r.Path),
		Protocol: r.Protocol, Status: r.Status, Flags: r.Flags, Details: r.Details, Attempts: r.Attempts,
		DurationMicros: max(r.Duration, 0) / 1000, Route: r.Route, VirtualHost: r.VirtualHost, Cluster: r.Cluster,
		Upstream: r.Upstream, Remote: r.Remote, Local: r.Local, TraceID: r.TraceID, SpanID: r.SpanID,
		RequestID: string(r.RequestID), RequestBytes: r.RequestBytes, ResponseBytes: r.ResponseBytes,
		RequestTruncated: r.RequestTruncated, ResponseTruncate: r.ResponseTruncated, Redacted: r.Redacted,
		TransportFailure: r.TransportFailure, ConnectionID: r.ConnectionID, ServerName: string(r.ServerName), ALPN: string(r.ALPN), Peer: string(r.Peer),
		RequestHeaders: headersJSON(r.RequestHeaders), ResponseHeaders: headersJSON(r.ResponseHeaders),
	}
	if r.ID != [16]byte{} {
		j.ID = hex.EncodeToString(r.ID[:])
	}
	j.RequestBody, j.RequestBody64 = bodyJSON(r.RequestBody)
	j.ResponseBody, j.ResponseBody64 = bodyJSON(r.ResponseBody)
	buf := bytes.NewBuffer(dst)
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(&j); err != nil {
		return dst // of such a struct it cannot fail
	}
	return buf.Bytes()
}

func headersJSON(hs []Header) []headerJSON {
	var out []headerJSON
	for _, h := range hs {
		out = append(out, headerJSON{string(h.Name), string(h.Value)})
	}
	return out
}

func bodyJSON(b []byte) (text string, raw []byte) {
	if utf8.Valid(b) {
		return string(b), nil
	}
	return "", b
}
