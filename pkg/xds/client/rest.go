// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// runREST polls the REST-JSON service of one type.
func (c *Client) runREST(ctx context.Context, s *source) {
	t := decode.TypeOf(s.kind)
	if t.REST == "" {
		c.tell(ctx, message{from: s, ev: Closed{}, err: fmt.Errorf("%s has no REST service", t.Short)})
		return
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext:         c.dialREST(s.src.Service.Cluster),
		MaxIdleConnsPerHost: 1,
	}}
	defer client.CloseIdleConnections()
	if !c.tell(ctx, message{from: s, ev: Opened{}}) {
		return
	}
	up := true
	for {
		asked := s.out.peek(s.kind)
		r, err := c.poll(ctx, client, s, t, asked)
		var m message
		switch {
		case err != nil:
			m, up = message{from: s, ev: Closed{}, err: err}, false
		case err == nil && !up:
			m, up = message{from: s, ev: Opened{}}, true
		}
		if m.from != nil && !c.tell(ctx, m) {
			return
		}
		if r != nil && !c.tell(ctx, message{from: s, ev: Response{DiscoveryResponse: r, Asked: asked.World}}) {
			return
		}
		// A tenth of jitter keeps a fleet from asking in step.
		if !s.rest(ctx, s.src.RefreshDelay+rand.N(s.src.RefreshDelay/10+1)) {
			return
		}
	}
}

// rest waits for the next poll; what is newly wanted is asked for at once. It is
// false if ctx ended first.
func (s *source) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		case <-s.out.wake:
			if r := s.out.peek(s.kind); r != nil && r.New {
				return true
			}
		}
	}
}

// poll asks once. It returns nil without an error for 304: nothing has changed.
func (c *Client) poll(ctx context.Context, client *http.Client, s *source, t *decode.Type, req *Request) (*discoveryv3.DiscoveryResponse, error) {
	if req == nil || req.World == nil {
		return nil, nil
	}
	body, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(req.World)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.src.RequestTimeout)
	defer cancel()
	h, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.src.Service.Cluster+"/v3/discovery:"+t.REST, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	h.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(h)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK && resp.ContentLength > int64(c.cfg.MaxResponseBytes) {
		return nil, &sizeError{max: c.cfg.MaxResponseBytes}
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, int64(c.cfg.MaxResponseBytes)+1))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotModified:
		return nil, nil
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s %s", resp.Status, first(string(data), 200))
	case len(data) > c.cfg.MaxResponseBytes:
		return nil, &sizeError{max: c.cfg.MaxResponseBytes}
	}
	out := new(discoveryv3.DiscoveryResponse)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("the response is no DiscoveryResponse: %w", err)
	}
	if out.GetTypeUrl() == "" {
		out.TypeUrl = t.URL
	}
	return out, nil
}

func first(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// dialREST connects to the first endpoint of a static cluster that answers.
func (c *Client) dialREST(cluster string) func(context.Context, string, string) (net.Conn, error) {
	list := c.addresses(cluster)
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		err := errors.New("cluster " + strconv.Quote(cluster) + " has no endpoint")
		for _, a := range list {
			network, addr := "tcp", net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
			if a.Path != "" {
				network, addr = "unix", a.Path
			}
			var conn net.Conn
			if conn, err = d.DialContext(ctx, network, addr); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
}
