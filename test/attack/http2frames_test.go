// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"fmt"
	"testing"

	"golang.org/x/net/http2"
)

// CVE-2026-27141: frames of types 0x0a to 0x0f made Go's server panic. Every type, at
// many lengths, flags and streams: those that are not known mean nothing, however
// many flags they have; others end their stream or connection, and the process lives.
func TestCVE202627141NoFrameOfAnyTypeHarmsTheProcess(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, answerOrHold)})
	p.watchOver(false, "/direct", "/upstream")
	lengths, flags := []int{0, 1, 4, 5, 6, 8, 9, 255, 16384}, []http2.Flags{0, 1, 4, 5, 8, 0x20, 0x2d, 0xff}
	t.Run("unknown types", func(t *testing.T) {
		for kind := 0x0a; kind <= 0xff; kind++ {
			h := p.http2(false)
			held := h.request(false, post("/x")...)
			for _, n := range lengths {
				for _, f := range flags {
					_ = h.f.WriteRawFrame(http2.FrameType(kind), f, held*uint32(n&1), make([]byte, n))
				}
			}
			_ = h.f.WriteData(held, true, []byte("x"))
			h.send()
			h.saw(fmt.Sprintf("an answer behind frames of type %#x", kind), func() bool { return h.status[held] == "200" })
			_ = h.c.Close()
		}
	})
	t.Run("known types", func(t *testing.T) {
		for kind := range 10 {
			for _, n := range lengths {
				for _, f := range flags {
					for _, stream := range []uint32{0, 1, 2, 3, 1<<31 - 1} {
						h := p.raw(false)
						h.out.WriteString(preface + settings)
						h.request(false, post("/x")...)
						_ = h.f.WriteRawFrame(http2.FrameType(kind), f, stream, make([]byte, n))
						h.send()
						_ = h.c.Close()
					}
				}
			}
		}
	})
	eventuallyCalm(t, "all of it is over", func() bool {
		return p.stat("http.main.downstream_cx_active") <= 2 && p.stat("cluster.c.upstream_rq_active") <= 1
	})
	if n := p.stat("outrigger.panics_total"); n != 0 {
		t.Errorf("%d panics", n)
	}
}
