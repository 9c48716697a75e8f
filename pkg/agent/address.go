// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// AdvertisedAddress is where other sidecars reach an inbound listener: its own
// address, or, when it listens on all of them, the local address that the system
// uses towards the control plane. controlplane is HOST:PORT or unix:PATH; behind a
// Unix socket nothing shows the way, so the loopback address is taken.
func AdvertisedAddress(ctx context.Context, inbound, controlplane string) (string, uint16, error) {
	host, portText, err := net.SplitHostPort(inbound)
	if err != nil {
		return "", 0, fmt.Errorf("inbound %q: want HOST:PORT to register it", inbound)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("inbound %q: want a port from 1 to 65535 to register it", inbound)
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "":
	case err != nil:
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil || len(addrs) == 0 {
			return "", 0, fmt.Errorf("inbound %q: %w", inbound, err)
		}
		return addrs[0].Unmap().String(), uint16(port), nil
	case !addr.IsUnspecified():
		return addr.Unmap().String(), uint16(port), nil
	}
	local, err := localTowards(ctx, controlplane)
	if err != nil {
		return "", 0, fmt.Errorf("inbound %q: which local address to register: %w (name it with --inbound)", inbound, err)
	}
	return local, uint16(port), nil
}

// localTowards asks the system's routes; no packet is sent.
func localTowards(ctx context.Context, target string) (string, error) {
	if strings.HasPrefix(target, "unix:") {
		return "127.0.0.1", nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", target)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return "", err
	}
	return local.Addr().Unmap().WithZone("").String(), nil
}
