// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// CVE-2024-23326, of our own making: whatever the reply is that the proxy makes to
// CONNECT, it must not be success, behind which the client would send its bytes.
func TestNoReplyOfOurOwnIsConsentToCONNECT(t *testing.T) {
	direct := func(s *resource.Snapshot) {
		for _, r := range s.Routes["r"].VirtualHosts[0].Routes {
			r.Action, r.Direct = nil, &resource.DirectResponse{Status: 200, Body: []byte("hello")}
		}
	}
	notEnabled := func(s *resource.Snapshot) { s.Listeners["l"].FilterChains[0].HTTP.Upgrades = nil }
	for _, c := range []struct {
		name  string
		field string
		edit  func(*resource.Snapshot)
	}{
		{"of gRPC", "content-type: application/grpc", notEnabled},
		{"by a mapper", "", func(s *resource.Snapshot) {
			notEnabled(s)
			s.Listeners["l"].FilterChains[0].HTTP.LocalReplies = []resource.LocalReplyMapper{{Status: 200, HasBody: true, Body: "mapped"}}
		}},
		{"by its route", "", direct},
		{"by its route, of gRPC", "content-type: application/grpc", direct},
		{"by its route and a format", "", func(s *resource.Snapshot) {
			direct(s)
			s.Listeners["l"].FilterChains[0].HTTP.LocalReplyFormat = &resource.LogFormat{JSON: []resource.LogField{{Name: "a", Literal: "1"}}}
		}},
	} {
		for kind, s := range map[string]*span{
			"CONNECT of HTTP/1": {connect: true}, "CONNECT of HTTP/2": {connect: true, downH2: true}, "extended CONNECT": {downH2: true},
		} {
			t.Run(c.name+" to "+kind, func(t *testing.T) {
				s := newSpan(t, s, c.edit)
				var fields []string
				if c.field != "" {
					fields = []string{c.field}
				}
				client := s.ask("EARLY", fields...)
				s.r.until("the answer", time.Second, func() bool { return client.head != "" })
				if !strings.Contains(client.head[:min(len(client.head), 13)], "403") || len(client.data) != 0 || client.has("grpc-status") {
					t.Errorf("got %q %q", client.head, client.data)
				}
				s.none(client)
			})
		}
	}
}

// What begins in a drain ends with what was there when it began: the process does not
// outlive it.
func TestATunnelThatOpensInADrainEndsWithIt(t *testing.T) {
	spans(t, asIs, func(t *testing.T, s *span) {
		whole := s.r.p.options.DrainTime
		start := s.r.world.Now()
		s.r.p.listeners["l"].drains.Store(true) // as Drain begins it, which waits by the real clock
		s.r.p.workers[0].loop.PostOffLoop(s.r.p.workers[0].drainListeners)
		s.r.pass(whole / 4)
		c, up := s.open("")
		s.r.until("the end", time.Minute, func() bool { return c.over() && (up.over() || up.broken()) })
		if took := s.r.world.Now() - start; took < whole/2 || took > whole-noticeTime/2 {
			t.Errorf("ended %v after a drain of %v began, want some time before its end", took, whole)
		}
		c.peer.CloseWrite()
		s.closed(c)
	})
}
