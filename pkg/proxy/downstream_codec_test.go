// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// http2Start is a preface with empty SETTINGS, and http2Ping a PING.
const (
	http2Start = http2.Preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	http2Ping  = "\x00\x00\x08\x06\x00\x00\x00\x00\x00" + "12345678"
)

// The time of a head bounds one frame, one header block and the beginning: not a
// connection whose reads all happen to end within a frame, each within another.
func TestATimeForEachFrameAndNoneForAllOfThem(t *testing.T) {
	const limit = 2 * time.Second
	first := "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" // HEADERS without END_HEADERS
	for name, c := range map[string]struct {
		begin, step string
		ends        bool
	}{
		"frames that end":              {http2Start + http2Ping[:5], http2Ping[5:] + http2Ping[:5], false},
		"nothing more of a frame":      {http2Start + http2Ping[:5], "", true},
		"a byte at a time of a frame":  {http2Start + "\x00\x40\x00\x2a\x00\x00\x00\x00\x00", "x", false}, // passed over as it comes
		"a byte at a time of SETTINGS": {http2.Preface + "\x00\x00\xf0\x04\x00\x00\x00\x00\x00", "x", true},
		"a byte at a time of HEADERS":  {http2Start + "\x00\x00\xf0\x01\x05\x00\x00\x00\x01", "x", true},
		"frames of one block":          {http2Start + first, "\x00\x00\x01\x09\x00\x00\x00\x00\x01\x86", true},
		"nothing but a preface":        {http2.Preface, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
				withCluster(s, "c", "10.0.0.9:80")
				s.Listeners["l"].FilterChains[0].HTTP.RequestHeadersTimeout = limit
			})
			p := r.dial()
			p.Write([]byte(c.begin))
			gone := func() bool { return p.EOF || p.Err != nil }
			began := r.world.Now()
			for r.world.Now() < began+3*limit && !gone() {
				if err := r.world.Run(limit / 4); err != nil {
					t.Fatal(err)
				}
				if !gone() {
					p.Write([]byte(c.step))
				}
			}
			if took := r.world.Now() - began; gone() != c.ends || c.ends && took > limit*3/2 {
				t.Errorf("ended: %v, after %v", gone(), took)
			}
			if c.ends && !strings.Contains(string(p.Received), "\x07\x00\x00\x00\x00\x00") {
				t.Errorf("no GOAWAY in %q", p.Received)
			}
		})
	}
}
