// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// askHTTP2 makes the check as a stream of HTTP/2.
func (a *attempt) askHTTP2(ctx context.Context, l *link) (r Result, keep bool, err error) {
	if l.http2 == nil {
		if l.http2, err = speakHTTP2(ctx, l.conn); err != nil {
			return r, false, err
		}
	}
	if l.http2.Err() != nil || l.http2.Available() == 0 {
		return r, false, errors.New("the connection takes no more requests")
	}
	answer, err := l.http2.RoundTrip(a.request(ctx, l))
	if err != nil {
		return r, false, err
	}
	l.read = true
	defer answer.Body.Close()
	r, _, err = a.judge(answer)
	return r, true, err
}

// speakHTTP2 begins HTTP/2 on a connection that is secured already, if it is to be.
func speakHTTP2(ctx context.Context, c net.Conn) (*http.ClientConn, error) {
	t := &http.Transport{
		Protocols: new(http.Protocols), DisableCompression: true, MaxResponseHeaderBytes: headBytes,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return t.NewClientConn(ctx, "http", "host:80") // the address is that of c
}

// request is the check's for HTTP/2.
func (a *attempt) request(ctx context.Context, l *link) *http.Request {
	u := &url.URL{Scheme: "http", Host: l.to.authority}
	if l.context != nil {
		u.Scheme = "https"
	}
	u.RawPath, u.RawQuery, u.ForceQuery = strings.Cut(a.check.Path, "?")
	u.Path = u.RawPath
	if p, err := url.PathUnescape(u.RawPath); err == nil {
		u.Path = p
	}
	q := &http.Request{Method: a.check.Method, Host: u.Host, URL: u, Header: a.header()}
	if _, ok := q.Header["User-Agent"]; !ok {
		q.Header["User-Agent"] = nil // and none of the library's
	}
	if len(a.check.Send) > 0 {
		q.Body, q.ContentLength = io.NopCloser(bytes.NewReader(a.check.Send)), int64(len(a.check.Send))
	}
	return q.WithContext(ctx)
}
