// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/outrigger-mesh/outrigger/pkg/trace"
)

const (
	// gzipAbove is the size of a body from which compression pays.
	gzipAbove = 4 << 10
	// spanSize is what most spans need as JSON.
	spanSize = 768
)

// compressors hold the tables of gzip, which are larger than what they compress.
// The fastest level: spans repeat themselves, and the CPU is the application's.
var compressors = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return w
}}

// zipkin posts batches to a collector's /api/v2/spans.
type zipkin struct {
	*batcher[[]byte]
	url, host string
	client    *http.Client
}

func newZipkin(target, host string, where func() (string, error)) (*zipkin, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("zipkin.url: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("zipkin.url: %q: want http://HOST:PORT/api/v2/spans", target)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && where == nil {
		if err := checkAddr(a); err != nil {
			return nil, fmt.Errorf("zipkin.url: %w", err)
		}
	}
	z := &zipkin{url: u.String(), host: host, client: httpClient(where)}
	z.batcher = newBatcher("zipkin "+u.Redacted(), z.post, z.client.CloseIdleConnections)
	return z, nil
}

// Export implements trace.Exporter.
func (z *zipkin) Export(s *trace.Span) {
	if !z.full() {
		z.put(AppendZipkin(make([]byte, 0, spanSize), s))
	}
}

func (z *zipkin) post(ctx context.Context, spans [][]byte) error {
	body := bytes.Join(spans, []byte{','})
	body = append(append([]byte{'['}, body...), ']')
	encoding := ""
	if len(body) > gzipAbove {
		var buf bytes.Buffer
		w := compressors.Get().(*gzip.Writer)
		w.Reset(&buf)
		w.Write(body) // a buffer takes everything
		w.Close()
		compressors.Put(w)
		body, encoding = buf.Bytes(), "gzip"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, z.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %w", errPermanent, err)
	}
	req.Header.Set("Content-Type", "application/json")
	// Spans of exporting must not come back as spans.
	req.Header.Set("B3", "0")
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	if z.host != "" {
		req.Host = z.host
	}
	resp, err := z.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(said))
	}
	return fmt.Errorf("%w: %s: %s", errPermanent, resp.Status, bytes.TrimSpace(said))
}

// AppendZipkin appends a span as a Zipkin v2 JSON object.
func AppendZipkin(dst []byte, s *trace.Span) []byte {
	dst = append(dst, `{"traceId":"`...)
	if s.ID128 {
		dst = hex.AppendEncode(dst, s.TraceID[:])
	} else {
		dst = hex.AppendEncode(dst, s.TraceID[8:])
	}
	dst = hex.AppendEncode(append(dst, `","id":"`...), s.SpanID[:])
	if s.ParentID != [8]byte{} {
		dst = hex.AppendEncode(append(dst, `","parentId":"`...), s.ParentID[:])
	}
	dst = append(dst, `","kind":"`...)
	if s.Client {
		dst = append(dst, "CLIENT"...)
	} else {
		dst = append(dst, "SERVER"...)
	}
	dst = appendString(append(dst, `","name":`...), string(s.Name))
	dst = strconv.AppendInt(append(dst, `,"timestamp":`...), s.Start/1000, 10)
	dst = strconv.AppendInt(append(dst, `,"duration":`...), max(s.Duration/1000, 1), 10)
	dst = appendEndpoint(append(dst, `,"localEndpoint":`...), s.Service, s.Local)
	if s.RemoteService != "" || s.Remote.IsValid() {
		dst = appendEndpoint(append(dst, `,"remoteEndpoint":`...), s.RemoteService, s.Remote)
	}
	if len(s.Tags) > 0 {
		dst = append(dst, `,"tags":{`...)
		for i, t := range s.Tags {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, t.Key)
			dst = appendString(append(dst, ':'), string(t.Value))
		}
		dst = append(dst, '}')
	}
	if s.Debug {
		dst = append(dst, `,"debug":true`...)
	}
	if s.Shared {
		dst = append(dst, `,"shared":true`...)
	}
	return append(dst, '}')
}

func appendEndpoint(dst []byte, service string, a netip.AddrPort) []byte {
	dst = append(dst, '{')
	if service != "" {
		dst = appendString(append(dst, `"serviceName":`...), strings.ToLower(service))
	}
	if a.IsValid() {
		if service != "" {
			dst = append(dst, ',')
		}
		addr := a.Addr().Unmap()
		if addr.Is4() {
			dst = append(dst, `"ipv4":"`...)
		} else {
			dst = append(dst, `"ipv6":"`...)
		}
		dst = append(addr.WithZone("").AppendTo(dst), '"')
		if a.Port() != 0 {
			dst = strconv.AppendUint(append(dst, `,"port":`...), uint64(a.Port()), 10)
		}
	}
	return append(dst, '}')
}

// appendString appends s as a JSON string: as it is where nothing has to be escaped.
func appendString(dst []byte, s string) []byte {
	if !strings.ContainsFunc(s, escapes) {
		return append(append(append(dst, '"'), s...), '"')
	}
	buf := bytes.NewBuffer(dst)
	e := json.NewEncoder(buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return append(dst, `""`...) // of a string it cannot fail
	}
	b := buf.Bytes()
	return b[:len(b)-1] // without the line end
}

func escapes(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r > '~' }
