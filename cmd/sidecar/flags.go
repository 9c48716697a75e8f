// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/identity"
	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
)

// flags is where pflag writes what it reads.
type flags struct {
	options                     Options
	drainSeconds, parentSeconds int64
}

// bindFlags gives a command the flags of the sidecar.
func bindFlags(c *cobra.Command) *flags {
	f := &flags{}
	o, set := &f.options, c.Flags()
	set.SortFlags = false

	// The common case.
	set.StringVar(&o.Service, "service", "", "name of the service beside this sidecar")
	set.StringVar(&o.App, "app", "", "`HOST:PORT` of the application; without it the sidecar only calls others")
	set.StringVar(&o.ControlPlane, "controlplane", "", "`HOST:PORT` or unix:PATH of the control plane's xDS port")
	set.StringVar(&o.TokenFile, "token-file", "", "file with the bearer token for the control plane")
	set.BoolVar(&o.InsecureXDS, "insecure-xds", false, "allow plaintext to a control plane that is not on this host")
	set.StringVar(&o.TrustBundle, "trust-bundle", "", "file with the roots of the control plane; makes the connection to it mutual TLS (its port 15012)")
	set.StringVar(&o.MutualTLS, "mutual-tls", "", "on or off: mutual TLS with other sidecars, with an identity of the control plane (default on with --trust-bundle, otherwise off)")
	set.StringVar(&o.TrustDomain, "trust-domain", "", "trust domain of the mesh (default with --trust-bundle \""+identity.DefaultTrustDomain+"\", otherwise the control plane's)")
	set.StringVar(&o.Inbound, "inbound", "", "address for other sidecars (default \""+defaultInbound+"\")")
	set.StringVar(&o.Outbound, "outbound", "", "address for the application, or unix:PATH (default \""+defaultOutbound+"\")")
	set.StringVar(&o.OutboundPolicy, "outbound-policy", "", "what happens to names nobody registered: registry-only answers 404")
	set.StringArrayVar(&o.TCPOutbound, "tcp-outbound", nil, "`ADDRESS=SERVICE:PORT`: listen at ADDRESS for connections to a port of protocol tcp or tls; may be repeated")
	set.StringVar(&o.HealthPath, "health", "", "path to GET for the application's health; without it a TCP connection is tried")
	set.StringVar(&o.ID, "id", "", "id of this instance within its service (default host name and port: inbound, or outbound without --app)")
	set.StringVar(&o.Region, "region", "", "region of this instance")
	set.StringVar(&o.Zone, "zone", "", "zone of this instance")
	set.StringVar(&o.VersionLabel, "version-label", "", "version of the application, for routing")
	set.Uint32Var(&o.Weight, "weight", 0, "relative share of the load (default 1)")
	set.StringToStringVar(&o.Labels, "label", nil, "metadata `KEY=VALUE` of this instance; may be repeated")
	set.Lookup("label").DefValue = "" // not []

	// A bootstrap.
	set.StringVarP(&o.ConfigPath, "config-path", "c", "", "Envoy v3 bootstrap file, YAML or JSON")
	set.StringVar(&o.ConfigYAML, "config-yaml", "", "bootstrap as text, merged over --config-path")
	set.StringVar(&o.Mode, "mode", "serve", "serve, or validate and end")

	// Both.
	set.StringVar(&o.Admin, "admin", "", "admin address, or unix:PATH (default \""+defaultAdmin+"\", with a bootstrap what it says)")
	set.StringVar(&o.DNS, "dns", "", "answer DNS on this loopback address, such as 127.0.0.1:15053: mesh names with virtual addresses, others by the host's resolvers (default none)")
	set.StringVar(&o.DNSRange, "dns-range", "", "IPv4 network of the virtual addresses (default 240.240.0.0/16)")
	set.StringVar(&o.AdminTokenFile, "admin-token-file", "", "file with the bearer token that the admin port wants off loopback")
	set.BoolVar(&o.AdminTap, "admin-tap", false, "allow POST /tap on the admin port")
	set.BoolVar(&o.AdminProfiling, "admin-profiling", false, "allow profiles of CPU, memory and locks on the admin port")
	set.StringVar(&o.AdminAddressPath, "admin-address-path", "", "file to write the admin address to")
	set.StringVar(&o.EventLog, "event-log", "", "file for what the sidecar decides (ejections, circuits, refused configuration …), a line of JSON each; /dev/stdout works")
	set.StringVar(&o.Data, "data", "", "folder for the last good configuration and spools (default \""+defaultData+"\", with a bootstrap none)")
	set.IntVar(&o.MaxResponseBytes, "xds-max-response-bytes", client.DefaultMaxResponseBytes, "largest configuration response, or file of resources, that is taken")
	set.IntVar(&o.Concurrency, "concurrency", 0, "number of worker threads (default one for each core)")
	set.StringVarP(&o.LogLevel, "log-level", "l", "info", "trace, debug, info, warning, error, critical or off")
	set.Int64Var(&f.drainSeconds, "drain-time-s", 0, "seconds that draining may take (default 15, with a bootstrap 600)")
	set.StringVar(&o.DrainStrategy, "drain-strategy", "gradual", "gradual, or immediate: connections without a request are closed as soon as draining begins")
	set.DurationVar(&o.DrainIdle, "drain-idle-time", defaultDrainIdle, "how long a connection without a request may stay in a gradual drain")
	set.DurationVar(&o.SettleTime, "settle-time", defaultSettle, "how long the news of the deregistration may take before draining begins")
	set.StringVar(&o.DrainOrder, "drain-order", drainTogether, "together, or inbound-first: the outbound side stays open until the application has gone")
	set.BoolVar(&o.Upgrade, "upgrade", false, "take over from the sidecar that uses the folder of --data, if there is one, without losing a connection")
	set.Int64Var(&f.parentSeconds, "parent-shutdown-time-s", 900, "seconds that this process may stay once a successor serves")
	set.Uint32Var(&o.BaseID, "base-id", 0, "accepted as Envoy's; sidecars of a host share nothing that it would separate")
	set.StringVar(&o.ServiceNode, "service-node", "", "node id, in place of SERVICE~ID or the bootstrap's")
	set.StringVar(&o.ServiceCluster, "service-cluster", "", "node cluster, in place of the service or the bootstrap's")
	set.StringVar(&o.Zone, "service-zone", "", "the same as --zone")
	complete := func(flag string, values ...string) {
		// It fails only where there is no such flag.
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	complete("mode", "serve", "validate")
	complete("log-level", "trace", "debug", "info", "warning", "error", "critical", "off")
	complete("drain-strategy", "gradual", "immediate")
	complete("drain-order", drainTogether, drainInboundFirst)
	complete("mutual-tls", "on", "off")
	complete("outbound-policy", "registry-only")
	_ = c.MarkFlagFilename("config-path", "yaml", "yml", "json")
	_ = c.MarkFlagFilename("event-log")
	_ = c.MarkFlagDirname("data")
	return f
}
