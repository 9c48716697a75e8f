// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/proxy"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
)

// noSuchPort is why nobody listens for a --tcp-outbound.
const noSuchPort = "nobody listens: the mesh has no service of that name that lists that port with protocol tcp or tls; it is listened at once there is one"

// askedListeners are those of --tcp-outbound, which the control plane names by their
// targets.
func (o *Options) askedListeners() []client.Asked {
	var out []client.Asked
	for _, v := range o.TCPOutbound {
		_, target, _ := strings.Cut(v, "=")
		out = append(out, client.Asked{Name: target, By: "--tcp-outbound " + v, Missing: noSuchPort})
	}
	return out
}

// tcpOutboundTo is the flag that asks for a listener; empty: none does.
func (o *Options) tcpOutboundTo(target string) string {
	for _, v := range o.TCPOutbound {
		if _, t, _ := strings.Cut(v, "="); t == target {
			return "--tcp-outbound " + v
		}
	}
	return ""
}

// explainTCPOutbound says where a listener comes from that a flag asks for, or which flag
// asks for one that there is not; and where the request's host is reached by one.
func (o *Options) explainTCPOutbound(q proxy.Query, x *proxy.Explanation, err error) error {
	if err != nil {
		switch flag := o.tcpOutboundTo(q.Listener); {
		case flag != "":
			return fmt.Errorf("%w; %s asks for it, and %s", err, flag, noSuchPort)
		case q.Scheme == schemeTCP:
			return fmt.Errorf("%w; no --tcp-outbound of this sidecar is for %s", err, q.Listener)
		}
		return err
	}
	for i := range x.Steps {
		if s := &x.Steps[i]; s.Stage == "listener" {
			if flag := o.tcpOutboundTo(s.Name); flag != "" {
				s.Reason += ", made for " + flag
			}
		}
	}
	if x.Routed {
		return nil
	}
	host := (&url.URL{Host: q.Authority}).Hostname()
	for _, v := range o.TCPOutbound {
		address, target, _ := strings.Cut(v, "=")
		if service, _, _ := strings.Cut(target, ":"); service == host {
			x.Hints = append(x.Hints, fmt.Sprintf("connections to %s are passed on by --tcp-outbound at %s: sidecar explain CONNECT tcp://%s", target, address, target))
		}
	}
	return nil
}
