// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	userAgent = "Outrigger/HC"
	// headBytes bounds what is read of a response's head, drainBytes what is read of a
	// body that nobody looks at: a connection with more of it is not used again.
	headBytes  = 64 << 10
	drainBytes = 64 << 10
	// Interim responses before the one that counts.
	maxInterim = 8

	degradedHeader = "X-Envoy-Degraded"
	clusterHeader  = "X-Envoy-Upstream-Healthchecked-Cluster"
)

// header are the request's but for those that frame it.
func (a *attempt) header() http.Header {
	h := http.Header{"User-Agent": {userAgent}}
	for _, n := range a.check.Remove {
		h.Del(n)
	}
	for _, v := range a.check.Headers {
		name := http.CanonicalHeaderKey(v.Name)
		_, exists := h[name]
		switch {
		case v.Action == resource.AppendIfExistsOrAdd:
			h[name] = append(h[name], v.Value)
		case v.Action == resource.AddIfAbsent && exists, v.Action == resource.OverwriteIfExists && !exists:
		default:
			h[name] = []string{v.Value}
		}
	}
	return h
}

// askHTTP1 makes the check on a connection of HTTP/1.1. The message is written here, so
// that a connection that waits for its next check costs a descriptor and nothing else.
func (a *attempt) askHTTP1(l *link) (r Result, keep bool, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", a.check.Method, a.check.Path, l.to.authority)
	if err := a.header().Write(&b); err != nil {
		return r, false, err
	}
	if len(a.check.Send) > 0 {
		b.WriteString("Content-Length: " + strconv.Itoa(len(a.check.Send)) + "\r\n")
	}
	if !a.check.ReuseConnection {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	b.Write(a.check.Send)
	if _, err := l.conn.Write(b.Bytes()); err != nil {
		return r, false, err
	}
	from := &io.LimitedReader{R: l, N: headBytes}
	in := bufio.NewReader(from)
	var answer *http.Response
	for range maxInterim {
		answer, err = http.ReadResponse(in, &http.Request{Method: a.check.Method})
		if err != nil || answer.StatusCode >= 200 || answer.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	switch {
	case err != nil && from.N <= 0:
		return Result{Outcome: Refused, Reason: "its answer's head has more than 64 KiB"}, false, nil
	case err != nil:
		return r, false, noEOF(err)
	}
	defer answer.Body.Close()
	from.N = drainBytes + int64(a.check.ReceiveBytes)
	r, whole, err := a.judge(answer)
	if err != nil && from.N <= 0 {
		err = nil // of a body longer than we read
	}
	return r, whole && !answer.Close && in.Buffered() == 0, err
}

// noEOF names the end of a connection.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it closed the connection without an answer")
	}
	return err
}

// judge reads an answer; whole says whether its end was read.
func (a *attempt) judge(answer *http.Response) (r Result, whole bool, err error) {
	var body []byte
	if len(a.check.Receive) > 0 {
		if body, err = io.ReadAll(io.LimitReader(answer.Body, int64(a.check.ReceiveBytes))); err != nil {
			return r, false, noEOF(err)
		}
	}
	_, err = io.CopyN(io.Discard, answer.Body, drainBytes)
	whole = errors.Is(err, io.EOF)
	if err != nil && !whole {
		return r, false, noEOF(err)
	}
	r = a.verdict(answer.StatusCode, answer.Header, body)
	return r, whole, nil
}

// verdict is what an answer means.
func (a *attempt) verdict(status int, h http.Header, body []byte) Result {
	r := Result{Outcome: Refused, Status: status}
	switch {
	case !within(a.check.Expected, status):
		r.Retriable = within(a.check.Retriable, status)
		r.Reason = "status " + strconv.Itoa(status)
		return r
	case !contains(body, a.check.Receive):
		r.Reason = "status " + strconv.Itoa(status) + ", and the body is not what is expected"
		return r
	}
	if a.check.ServiceName != nil {
		r.verified = true
		if name := h.Get(clusterHeader); !a.check.ServiceName.MatchString(name) {
			r.Reason = fmt.Sprintf("it is of the service %q, not of the one that is expected", clip(name))
			return r
		}
	}
	r.Outcome = Passed
	if h.Get(degradedHeader) != "" || len(h[degradedHeader]) > 0 {
		r.Outcome = Degraded
	}
	return r
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 100)], "?") }

func within(list []resource.StatusSpan, status int) bool {
	return slices.ContainsFunc(list, func(r resource.StatusSpan) bool { return r.From <= status && status < r.To })
}
