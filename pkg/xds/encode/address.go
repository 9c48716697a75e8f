// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Address parses host:port, with an IP address or "localhost" as the host, or
// unix:PATH. An empty host listens on all addresses of IPv4.
func Address(s string) (*corev3.Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" || len(path) > 107 { // sockaddr_un
			return nil, fmt.Errorf("want unix:PATH with 1 to 107 bytes of path, got %q", s)
		}
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}, nil
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return nil, fmt.Errorf("want host:port or unix:PATH, got %q", s)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("want a port from 1 to 65535, got %q", s)
	}
	switch host {
	case "":
		host = "0.0.0.0"
	case "localhost":
		host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return nil, fmt.Errorf("want an IP address as the host, got %q", s)
	}
	return socketAddress(host, uint32(port)), nil
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
