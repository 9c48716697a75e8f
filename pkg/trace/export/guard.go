// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// metadata are addresses of cloud metadata services that are not link-local.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd20:ce::254"),
}

// checkAddr refuses addresses that no collector has.
func checkAddr(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	if a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() {
		return fmt.Errorf("%s is a link-local, multicast or unspecified address: refused as a destination", a)
	}
	for _, m := range metadata {
		if a == m {
			return fmt.Errorf("%s is a cloud metadata address: refused as a destination", a)
		}
	}
	return nil
}

// checkHostPort refuses such an address where it is written out.
func checkHostPort(hostport string) error {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return err
	}
	if host == "" || port == "" {
		return fmt.Errorf("%q: want HOST:PORT", hostport)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return checkAddr(a)
	}
	return nil
}

// dial checks the address that a name led to, at the last moment.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{
		Timeout: 5 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return checkAddr(ap.Addr())
		},
	}
	return d.DialContext(ctx, network, addr)
}

// httpClient dials through dial; where is not nil it says at each dial where to.
func httpClient(where func() (string, error)) *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if where != nil {
				var err error
				if addr, err = where(); err != nil {
					return nil, err
				}
			}
			return dial(ctx, network, addr)
		},
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: sendTimeout,
		TLSHandshakeTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{
		Transport:     t,
		Timeout:       sendTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
