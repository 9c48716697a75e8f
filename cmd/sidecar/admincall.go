// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	adminTimeout    = 10 * time.Second
	maxAdminBytes   = 16 << 20
	eventStreamType = "text/event-stream"
)

// adminCall is how commands reach the admin port of the sidecar that runs.
type adminCall struct{ admin, tokenFile string }

// bind adds the flags.
func (a *adminCall) bind(c *cobra.Command) {
	c.Flags().StringVar(&a.admin, "admin", defaultAdmin, "admin address of the sidecar, or unix:PATH")
	c.Flags().StringVar(&a.tokenFile, "admin-token-file", "", "the file of the sidecar's --admin-token-file, for an admin port off loopback")
}

// get asks the admin port.
func (a *adminCall) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	body, err := a.open(ctx, path, query, "")
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(body, maxAdminBytes))
	if err != nil {
		return nil, &codeError{exitUnreachable, fmt.Errorf("read the answer of %s: %w", a.admin, err)}
	}
	return data, nil
}

// open asks for what may have no end; the body is the caller's to close.
func (a *adminCall) open(ctx context.Context, path string, query url.Values, accept string) (io.ReadCloser, error) {
	network, address, host := "tcp", a.admin, a.admin
	if socket, ok := strings.CutPrefix(a.admin, "unix:"); ok {
		network, address, host = "unix", socket, "localhost"
	} else if _, _, err := net.SplitHostPort(a.admin); err != nil {
		return nil, fmt.Errorf("--admin: want HOST:PORT or unix:PATH, got %q", a.admin)
	}
	transport := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: adminTimeout, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: adminTimeout}).DialContext(ctx, network, address)
	}}
	u := url.URL{Scheme: "http", Host: host, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if a.tokenFile != "" {
		token, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("--admin-token-file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err
		}
		if strings.Contains(err.Error(), `malformed HTTP response "\x00\x00`) {
			return nil, a.stranger("it is a gRPC port, such as the control plane's xDS port")
		}
		return nil, &codeError{exitUnreachable, fmt.Errorf("no sidecar answers at --admin %s: %w (name the admin address that it was started with)", a.admin, err)}
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminBytes))
	_ = resp.Body.Close() // only read
	if err != nil {
		return nil, &codeError{exitUnreachable, fmt.Errorf("read the answer of %s: %w", a.admin, err)}
	}
	switch text := strings.TrimSpace(string(data)); resp.StatusCode {
	case http.StatusBadRequest:
		return nil, errors.New(text)
	case http.StatusUnauthorized:
		return nil, fmt.Errorf("the admin port %s wants a token: name its file with --admin-token-file", a.admin)
	case http.StatusServiceUnavailable:
		return nil, &codeError{exitUnreachable, fmt.Errorf("the admin port %s refuses: %.200s", a.admin, text)}
	}
	return nil, a.stranger(fmt.Sprintf("status %d", resp.StatusCode))
}

// stranger says that something else than an admin port answers.
func (a *adminCall) stranger(answer string) error {
	return &codeError{exitUnreachable, fmt.Errorf("%s is not a sidecar's admin port (%s): --admin wants the address of the sidecar's --admin (%s by default), not its --outbound or --inbound, nor a port of the control plane", a.admin, answer, defaultAdmin)}
}
