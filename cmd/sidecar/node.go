// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"strings"

	"github.com/outrigger-mesh/outrigger/internal/buildinfo"
)

// userAgent is the name by which the control plane knows its own sidecars.
const userAgent = "outrigger-sidecar"

// Node is how the sidecar introduces itself to a control plane over xDS.
type Node struct {
	ID, Cluster      string
	Region, Zone     string
	UserAgentName    string
	UserAgentVersion string
	// Metadata holds text only. The control plane builds the sidecar's listeners
	// from it: service, inbound, outbound, app, outboundPolicy, mutualTLS, tcpOutbound. What the sidecar does
	// not have is absent.
	Metadata map[string]string
}

// Node builds the identity of the common case; with a bootstrap, the flags only
// replace what the file says, where they are given.
func (o *Options) Node() Node {
	n := Node{
		ID: o.ServiceNode, Cluster: o.ServiceCluster, Region: o.Region, Zone: o.Zone,
		UserAgentName: userAgent, UserAgentVersion: version(),
	}
	if !o.Common() {
		return n
	}
	if n.ID == "" {
		n.ID = o.Service + "~" + o.ID
	}
	if n.Cluster == "" {
		n.Cluster = o.Service
	}
	n.Metadata = map[string]string{
		"service":        o.Service,
		"outbound":       explicit(o.Outbound),
		"outboundPolicy": "registry-only",
	}
	if o.OutboundPolicy != "" {
		n.Metadata["outboundPolicy"] = o.OutboundPolicy
	}
	if o.Secure() {
		n.Metadata["mutualTLS"] = "true"
	}
	if len(o.TCPOutbound) > 0 {
		n.Metadata["tcpOutbound"] = strings.Join(o.TCPOutbound, ",")
	}
	if o.App != "" {
		n.Metadata["app"] = explicit(o.App)
		n.Metadata["inbound"] = explicit(o.Inbound)
	}
	return n
}

// explicit writes an address with its host, as a listener of the configuration
// wants it.
func explicit(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	switch host {
	case "":
		host = "0.0.0.0"
	case "localhost":
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// version is the module version that was built.
func version() string { return buildinfo.Of("sidecar").Version }
