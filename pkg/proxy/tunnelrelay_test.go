// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Much goes by the kernel's pipe, which the proxy does not see: it is counted all
// the same, and both directions end in order.
func TestATunnelCountsWhatTheKernelHandsOn(t *testing.T) {
	const size = 24 << 20
	body := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	received := make(chan []byte, 1)
	b := scripted(t, func(c net.Conn) {
		all, _ := io.ReadAll(c)
		received <- all
		_, _ = c.Write(body)
	})
	r := newRig(t, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		s.Listeners["l"].FilterChains[0] = &resource.FilterChain{Name: "tcp", TCP: &resource.TCPProxy{
			StatPrefix: "t", Clusters: []resource.WeightedCluster{{Name: "c", Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour}}
	})
	c := r.dial().(*net.TCPConn)
	if _, err := c.Write(body); err != nil {
		t.Fatal(err)
	}
	var in uint64
	eventually(t, "all is counted", func() bool {
		done := make(chan struct{})
		w := r.p.workers[0]
		w.loop.PostOffLoop(func() {
			defer close(done)
			if w.tunnels != nil {
				in = w.tunnels.rec.BytesReceived
			}
		})
		<-done
		return in == size
	})
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := <-received; !bytes.Equal(got, body) {
		t.Errorf("the backend has %d bytes, or others", len(got))
	}
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, body) {
		t.Errorf("the client has %d bytes, or others: %v", len(got), err)
	}
}
