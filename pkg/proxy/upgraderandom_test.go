// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// TestTunnelsOfAnyCourseLeaveNothingBehind has both ends do what they like, before
// and after the agreement: what arrives is what was sent, as far as it arrives, and
// nothing is held when all is over.
func TestTunnelsOfAnyCourseLeaveNothingBehind(t *testing.T) {
	short := func(s *resource.Snapshot) {
		for _, r := range s.Routes["r"].VirtualHosts[0].Routes {
			r.Action.IdleTimeout, r.Action.HasIdleTimeout = 20*time.Second, true
		}
	}
	for seed := range uint64(25) {
		rng := rand.New(rand.NewPCG(seed, 8441))
		spans(t, short, func(t *testing.T, s *span) {
			c := s.ask("")
			ends := []*wireEnd{c}
			sent := map[*wireEnd][]byte{}
			agreed := false
			for step := range 30 {
				if up := s.server(); up.head != "" && len(ends) == 1 {
					ends = append(ends, up)
				}
				e := ends[rng.IntN(len(ends))]
				switch rng.IntN(9) {
				case 0:
					if len(ends) == 2 && !agreed {
						agreed = true
						s.accepts(ends[1])
					}
				case 1:
					e.stall(rng.IntN(2) == 0)
				case 2:
					if rng.IntN(4) == 0 {
						e.breakOff()
					}
				case 3:
					if rng.IntN(4) == 0 {
						e.peer.Close()
					}
				case 4:
					if e == c && !s.downH2 || e != c && !agreed && !s.terminates {
						break // would be the end of a request, and no response
					}
					e.write(nil, true)
				default:
					if e != c && !agreed && !s.terminates || e.codec != nil && e.codec.Queued(e.id) > 0 {
						break
					}
					b := bytes.Repeat(fmt.Appendf(nil, "%d.%d ", seed, step), rng.IntN(3000))
					sent[e] = append(sent[e], b...)
					e.write(b, false)
				}
				if err := s.r.world.Run(time.Duration(rng.IntN(20)) * time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			opened := c.has("HTTP/1.1 101") || c.has("HTTP/1.1 200") || c.has("200\n")
			for i, e := range ends {
				e.stall(false)
				other := sent[ends[(i+1)%len(ends)]]
				if opened && !bytes.HasPrefix(other, e.data) {
					t.Errorf("seed %d: %d bytes arrived that were not sent", seed, len(e.data))
				}
			}
			s.closed(c)
			if n := s.r.p.workers[0].stats.panics; n != 0 {
				t.Errorf("seed %d: %d panics", seed, n)
			}
		})
	}
}
