// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const (
	defaultServer  = "http://127.0.0.1:15014"
	clientTimeout  = 30 * time.Second
	maxAnswerBytes = 64 << 20
)

// client talks to a running control plane.
type client struct {
	io        streams
	server    string
	tokenFile string
}

// problem is the server's RFC 9457 answer.
type problem struct {
	Title   string      `json:"title"`
	Status  int         `json:"status"`
	Detail  string      `json:"detail"`
	Errors  mesh.Errors `json:"errors"`
	Current uint64      `json:"currentRevision"`
}

func (p *problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return strings.ToLower(cmp.Or(p.Title, http.StatusText(p.Status)))
}

func (p *problem) exitCode() int {
	switch p.Status {
	case http.StatusUnauthorized:
		return exitDenied
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exitConflict
	case http.StatusServiceUnavailable:
		return exitUnreachable
	}
	return exitFailed
}

// bind adds the flags that every client command takes.
func (c *client) bind(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&c.server, "server", cmp.Or(os.Getenv("OUTRIGGER_SERVER"), defaultServer), "URL of the control plane (env OUTRIGGER_SERVER)")
	f.StringVar(&c.tokenFile, "token-file", os.Getenv("OUTRIGGER_TOKEN_FILE"), "file with the bearer token, for a control plane off loopback (env OUTRIGGER_TOKEN_FILE, or OUTRIGGER_TOKEN with the token itself)")
	// The defaults come from the environment; the help is the same everywhere.
	f.Lookup("server").DefValue = defaultServer
	f.Lookup("token-file").DefValue = ""
	return cmd
}

func (c *client) token() (string, error) {
	if c.tokenFile == "" {
		return strings.TrimSpace(os.Getenv("OUTRIGGER_TOKEN")), nil
	}
	data, err := os.ReadFile(c.tokenFile)
	if err != nil {
		return "", exitWith(exitUsage, "--token-file: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// call makes one request. out, when not nil, gets the JSON of a 2xx answer.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body []byte, out any) (http.Header, error) {
	data, header, err := c.raw(ctx, method, path, query, body)
	if err != nil || out == nil {
		return header, err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, c.stranger(err)
	}
	return header, nil
}

func (c *client) raw(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, nil, exitWith(exitUnreachable, "read the answer of %s: %w", c.server, err)
	}
	return data, resp.Header, nil
}

// open asks for what may have no end; what it returns is the caller's to close.
func (c *client) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	resp, err := c.send(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// send makes one request; an answer that is no success is an error.
func (c *client) send(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	base, err := url.Parse(c.server)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, exitWith(exitUsage, "--server: want a URL such as %s, got %q", defaultServer, c.server)
	}
	u := base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, exitWith(exitUsage, "%w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // only read
	return nil, c.refused(resp, path, token != "")
}

// refused is the error of an answer that is no success.
func (c *client) refused(resp *http.Response, path string, sentToken bool) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return exitWith(exitUnreachable, "read the answer of %s: %w", c.server, err)
	}
	p := problem{Status: resp.StatusCode}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		if !strings.HasPrefix(path, zipkinPath) { // which answers in plain text, as Zipkin does
			return c.stranger(fmt.Errorf("status %d", resp.StatusCode))
		}
	} else if err := json.Unmarshal(data, &p); err != nil {
		p.Detail = fmt.Sprintf("status %d", resp.StatusCode)
	}
	if p.Status == http.StatusUnauthorized {
		return exitWith(p.exitCode(), "%s", c.wantedToken(sentToken))
	}
	return &exitError{p.exitCode(), &p}
}

// wantedToken says which token is meant: what the API answers is the same for a
// wrong one and for none.
func (c *client) wantedToken(sent bool) string {
	const which = "its own is made at the first start of serve, in the file token of --data (./outrigger-data/token by default), or is the one of serve --token-file"
	switch {
	case sent && c.tokenFile != "":
		return fmt.Sprintf("the token in %s is not this control plane's: %s", c.tokenFile, which)
	case sent:
		return "the token in OUTRIGGER_TOKEN is not this control plane's: " + which
	}
	return fmt.Sprintf("%s wants a token: give --token-file or OUTRIGGER_TOKEN_FILE: %s", c.server, which)
}

const zipkinPath = "/zipkin/"

// wantedPort is what every message about a wrong port ends with.
const wantedPort = "--server (or OUTRIGGER_SERVER) wants the control plane's HTTP port, that of serve --http (15014 by default)"

// unreachable says why there was no answer, and where it shows, which port that is.
func (c *client) unreachable(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, `malformed HTTP response "\x00\x00`), // the frame that HTTP/2 begins with
		strings.Contains(text, "readLoopPeekFail"): // and it came before the request had left
		return exitWith(exitUnreachable, "%s is a gRPC port, such as that of serve --xds (15010), which sidecars take as --controlplane; %s", c.server, wantedPort)
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return exitWith(exitUnreachable, "%s: the port speaks plain HTTP: write http:// in --server (or OUTRIGGER_SERVER)", c.server)
	case errors.Is(err, context.DeadlineExceeded):
		return exitWith(exitUnreachable, "control plane %s did not answer: %w; %s", c.server, err, wantedPort)
	}
	return exitWith(exitUnreachable, "control plane %s cannot be reached: %w (start it with `controlplane serve`, or name it with --server)", c.server, err)
}

// stranger says that something else answers.
func (c *client) stranger(err error) error {
	return exitWith(exitUnreachable, "%s: the answer is not the control plane's (%w): another program has the port, such as a sidecar's --admin or --outbound; %s", c.server, err, wantedPort)
}

// pages reads every page of a list.
func pages[T any](ctx context.Context, c *client, path string, query url.Values) ([]T, error) {
	var all []T
	if query == nil {
		query = url.Values{}
	}
	for {
		var p struct {
			Items    []T    `json:"items"`
			Continue string `json:"continue"`
		}
		if _, err := c.call(ctx, http.MethodGet, path, query, nil, &p); err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if p.Continue == "" {
			return all, nil
		}
		query.Set("continue", p.Continue)
	}
}
