// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// What is said of a request is true of all clusters that had it: only what reached no
// endpoint may be sent again whatever it is.
func TestPeersHearOfAllClustersOfARequest(t *testing.T) {
	resets := scripted(t, func(c net.Conn) { _ = readHead(c) })
	hangs := scripted(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	refuses, _ := rudeBackend(t, func(u *rude) { u.reset(http2.ErrCodeRefusedStream) })
	cancels, _ := rudeBackend(t, func(u *rude) { u.reset(http2.ErrCodeCancel) })
	gone := freeAddr(t)
	for _, tt := range []struct {
		name, method, first, second, want string
	}{
		{"neither was reached", "POST", gone, gone, peerConnect},
		{"the fallback was", "POST", gone, resets, peerReset},
		{"the first was", "PUT", resets, gone, peerReset},
		{"the first timed out", "PUT", hangs, gone, peerReset},
		{"both were", "PUT", resets, resets, peerReset},
		{"the first refused its stream", "POST", refuses, gone, peerConnect},
		{"the fallback did", "POST", gone, refuses, peerConnect},
		{"both did", "POST", refuses, refuses, peerConnect},
		{"the first reset its stream", "PUT", cancels, gone, peerReset},
		{"the fallback reset it", "POST", gone, cancels, peerReset},
		{"the first reset it, and the fallback refused", "PUT", cancels, refuses, peerReset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(s *resource.Snapshot) {
				for name, addr := range map[string]string{"c": tt.first, "standby": tt.second} {
					withCluster(s, name, addr).HTTP2 = addr == refuses || addr == cancels
				}
				s.Clusters["c"].Fallback = standby
				s.Listeners["l"].Direction = resource.Inbound
				if tt.first == hangs {
					s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = 100 * time.Millisecond
				}
			})
			resp, body := r.ask(tt.method, "/pay")
			if got := resp.Header.Get(peerHeader); resp.StatusCode != 503 || got != tt.want {
				t.Errorf("%d %q says %q, want %q", resp.StatusCode, body, got, tt.want)
			}
		})
	}
}

// A timeout is one of the answer's own cluster, not of one before it.
func TestTheAnswerToATimeoutIsNotThatOfAFallbackWhichFails(t *testing.T) {
	hangs := scripted(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", hangs).Fallback = standby
		withCluster(s, "standby")
		s.Routes["r"].VirtualHosts[0].Routes[0].Action.Timeout = 100 * time.Millisecond
	})
	resp, body := r.ask("GET", "/", "X-Envoy-Upstream-Rq-Timeout-Alt-Response: 1")
	if resp.StatusCode != 503 {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}
