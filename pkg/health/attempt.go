// SPDX-License-Identifier: Apache-2.0

package health

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// attempt is one check under way. It belongs to its goroutine.
type attempt struct {
	// Set once.
	cluster string
	check   *resource.HealthCheck
	host    *lb.Host
	hooks   *Hooks

	kept *link // from the check before; after this one, for the next
}

// link is a connection of checks.
type link struct {
	conn    net.Conn
	context *mtls.ClientContext // what it is secured with; nil: plaintext
	to      destination         // whom it was made for
	// One of them, for what is spoken on it; neither with HTTP/1 and TCP.
	http2 *http.ClientConn
	grpc  *grpc.ClientConn

	old  bool // an earlier check was made on it
	read bool // bytes have come in this check
}

// destination is where a host is checked and what is asked for: both may change while
// the host stays.
type destination struct{ network, address, authority string }

// Read implements net.Conn.
func (l *link) Read(b []byte) (int, error) {
	n, err := l.conn.Read(b)
	l.read = l.read || n > 0
	return n, err
}

func (l *link) close() {
	c := l.conn
	if w, ok := c.(*watched); ok {
		c = w.Conn
	}
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn() // without an alert, which might wait for the peer
	}
	_ = c.Close() // nothing was promised to the peer
	switch {
	case l.grpc != nil:
		_ = l.grpc.Close() // its connection has gone
	case l.http2 != nil:
		_ = l.http2.Close() // likewise
	}
}

// close ends what is left of the attempt.
func (a *attempt) close() {
	if a.kept != nil {
		a.kept.close()
		a.kept = nil
	}
}

// run makes the check.
func (a *attempt) run(parent context.Context) Result {
	ctx, cancel := context.WithTimeout(parent, a.check.Timeout)
	defer cancel()
	secure, err := a.secure()
	if err != nil {
		a.close()
		return Result{Outcome: Unknown, Reason: err.Error()}
	}
	if a.kept != nil && (a.kept.context != secure || a.kept.to != a.destination()) {
		a.close()
	}
	for {
		l := a.kept
		a.kept = nil
		if l == nil {
			if l, err = a.dial(ctx, secure); err != nil {
				return a.failure(ctx, err)
			}
		}
		r, keep, err := a.ask(ctx, l)
		if err == nil {
			if keep && a.check.ReuseConnection {
				l.old, l.read = true, false
				a.kept = l
			} else {
				l.close()
			}
			return r
		}
		l.close()
		// The host may have closed a connection that lay idle: that says nothing of it.
		if !l.old || l.read || ctx.Err() != nil {
			return a.failure(ctx, err)
		}
	}
}

// ask makes the check on a connection. It reports whether that can serve for another
// one. An error is one of the connection.
func (a *attempt) ask(ctx context.Context, l *link) (r Result, keep bool, err error) {
	// What blocks in a read or write ends with the check.
	c := l.conn
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(aLongTimeAgo) })
	defer func() {
		if !stop() {
			keep = false
		}
	}()
	switch {
	case a.check.Kind == resource.CheckGRPC:
		return a.askGRPC(ctx, l)
	case a.check.Kind == resource.CheckTCP:
		return a.askTCP(l)
	case a.check.HTTP2:
		return a.askHTTP2(ctx, l)
	}
	return a.askHTTP1(l)
}

// failure is the result of a connection that failed.
func (a *attempt) failure(ctx context.Context, err error) Result {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return Result{Outcome: TimedOut, Reason: fmt.Sprintf("no answer within %s", a.check.Timeout)}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return Result{Outcome: Unknown, Reason: "this process has no descriptor left"}
	}
	return Result{Outcome: Unreachable, Reason: brief(err)}
}

// brief is an error without the addresses that the reader knows, in one line.
func brief(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, err.Error())
	const most = 200
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}

func (a *attempt) secure() (*mtls.ClientContext, error) {
	if a.hooks.Secure == nil {
		return nil, nil
	}
	return a.hooks.Secure(a.host, a.check.MatchCriteria)
}

// destination is where the host is checked.
func (a *attempt) destination() destination {
	at, e := a.host.Address(), a.host.Check()
	d := destination{network: "tcp", authority: cmp.Or(a.check.Host, a.cluster)}
	if e != nil {
		if e.Address != (resource.Address{}) {
			at = e.Address
		}
		at.Port = cmp.Or(e.Port, at.Port)
		d.authority = cmp.Or(e.Hostname, d.authority)
	}
	if at.Path != "" {
		d.network, d.address = "unix", at.Path
	} else {
		d.address = net.JoinHostPort(at.Host, strconv.Itoa(int(at.Port)))
	}
	return d
}

// dial connects, and secures the connection.
func (a *attempt) dial(ctx context.Context, secure *mtls.ClientContext) (*link, error) {
	d := net.Dialer{KeepAlive: -1}
	to := a.destination()
	if a.hooks.Bind != nil && to.network == "tcp" {
		if from := a.hooks.Bind(); from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
	}
	c, err := d.DialContext(ctx, to.network, to.address)
	if err != nil {
		return nil, err
	}
	if a.check.SendProxy > 0 {
		if _, err := c.Write(proxyHeader(a.check.SendProxy, c)); err != nil {
			_ = c.Close() // the first error is the one to tell
			return nil, err
		}
	}
	if secure == nil {
		return &link{conn: c, to: to}, nil
	}
	peer, _ := netip.ParseAddrPort(to.address)
	conf := secure.Config(peer, mtls.Hello{Name: a.host.Hostname(), Protocol: a.protocol()})
	if len(a.check.ALPN) > 0 {
		conf = conf.Clone()
		conf.NextProtos = a.check.ALPN
	}
	t := tls.Client(c, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close() // the first error is the one to tell
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return &link{conn: t, context: secure, to: to}, nil
}

// protocol is offered by ALPN where the cluster names none.
func (a *attempt) protocol() string {
	switch {
	case a.check.Kind == resource.CheckTCP:
		return ""
	case a.check.HTTP2:
		return "h2"
	}
	return "http/1.1"
}
