// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"github.com/outrigger-mesh/outrigger/pkg/codec/http2"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// An HTTP/2 connection on which nothing came for a while is asked for a sign of
// life: the peer may have gone without a word.

// keepAliveAt is when keepAlive wants to be called next; heard is when something
// came last.
func keepAliveAt(c *http2.Conn, o *resource.HTTP2Options, heard int64) int64 {
	if o.KeepAliveInterval <= 0 {
		return 1 << 62
	}
	if since, asked := c.PingOutstanding(); asked {
		return since + int64(o.KeepAliveTimeout)
	}
	return heard + int64(o.KeepAliveInterval)
}

// keepAlive asks when it is time to, and reports whether the peer is alive as far
// as anybody knows.
func keepAlive(c *http2.Conn, o *resource.HTTP2Options, heard, now int64) bool {
	if now < keepAliveAt(c, o, heard) {
		return true
	}
	if _, asked := c.PingOutstanding(); asked {
		return false
	}
	c.Ping(now)
	return true
}
