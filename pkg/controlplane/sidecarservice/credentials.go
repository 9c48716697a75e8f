// SPDX-License-Identifier: Apache-2.0

package sidecarservice

import (
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

// ReasonTooLong is why a caller is refused that sends more than maxHandshake.
const ReasonTooLong identity.Reason = "handshake_too_long"

// maxHandshake bounds what crypto/tls is given of a client before the handshake is
// done, as sidecars do: it would gather 64 KiB of a ClientHello and 256 KiB of
// certificates before anybody can look at them.
const maxHandshake = 64 << 10 // bytes

var errTooLong = errors.New("the handshake is too long")

// Credentials secure a gRPC server by c. Handshakes are bounded in bytes, and refused is
// told of those that are cut, by any goroutine; the server has to bound their time
// (grpc.ConnectionTimeout).
func Credentials(c *tls.Config, refused func(remote string, reason identity.Reason, err error)) credentials.TransportCredentials {
	return &boundedCredentials{credentials.NewTLS(c), refused}
}

type boundedCredentials struct {
	credentials.TransportCredentials
	refused func(remote string, reason identity.Reason, err error)
}

// ServerHandshake implements credentials.TransportCredentials.
func (b *boundedCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := &boundedConn{Conn: raw, left: maxHandshake}
	conn, info, err := b.TransportCredentials.ServerHandshake(c)
	if errors.Is(err, errTooLong) {
		b.refused(raw.RemoteAddr().String(), ReasonTooLong, err)
	}
	c.done = true // before anybody else has the connection
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (b *boundedCredentials) Clone() credentials.TransportCredentials {
	return &boundedCredentials{b.TransportCredentials.Clone(), b.refused}
}

// boundedConn fails reads beyond a number of bytes until the handshake is done.
type boundedConn struct {
	net.Conn
	left int
	done bool
}

// Read implements net.Conn. What comes right behind the end of a handshake is no part
// of it, and is not asked for until that end has been looked at.
func (c *boundedConn) Read(b []byte) (int, error) {
	if c.done {
		return c.Conn.Read(b)
	}
	if c.left == 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}
