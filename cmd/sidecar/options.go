// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

// The defaults of the common case.
const (
	defaultInbound  = ":15006"
	defaultOutbound = "127.0.0.1:15001"
	defaultAdmin    = "127.0.0.1:15000"
	defaultData     = "./outrigger-sidecar"
)

// How long draining may take when nothing is said: Envoy's time with a bootstrap
// file; in the common case as long as a request may take by default.
const (
	defaultDrainEnvoy  = 600 * time.Second
	defaultDrainCommon = 15 * time.Second
)

// Options is the command line. The fields' comments name the flags.
type Options struct {
	// The common case: a service and a control plane.
	Service        string            // --service
	App            string            // --app
	ControlPlane   string            // --controlplane
	TokenFile      string            // --token-file
	InsecureXDS    bool              // --insecure-xds
	TrustBundle    string            // --trust-bundle; empty: the connection is plaintext
	TrustDomain    string            // --trust-domain
	MutualTLS      string            // --mutual-tls: on or off; empty: on with --trust-bundle
	Inbound        string            // --inbound
	Outbound       string            // --outbound
	OutboundPolicy string            // --outbound-policy
	TCPOutbound    []string          // --tcp-outbound
	HealthPath     string            // --health
	ID             string            // --id
	Region, Zone   string            // --region, --zone or --service-zone
	VersionLabel   string            // --version-label
	Weight         uint32            // --weight
	Labels         map[string]string // --label

	// A bootstrap.
	ConfigPath string // --config-path
	ConfigYAML string // --config-yaml
	Mode       string // --mode

	// Both.
	DNS              string // --dns; empty: none
	DNSRange         string // --dns-range
	Admin            string // --admin; empty: what the bootstrap says
	AdminTokenFile   string // --admin-token-file
	AdminTap         bool   // --admin-tap
	AdminProfiling   bool   // --admin-profiling
	AdminAddressPath string // --admin-address-path
	EventLog         string // --event-log; empty: none
	Data             string // --data; empty: nothing is kept
	Concurrency      int    // --concurrency: worker loops, at least 1 when the defaults are set
	LogLevel         string // --log-level
	ServiceNode      string // --service-node
	MaxResponseBytes int    // --xds-max-response-bytes
	ServiceCluster   string // --service-cluster

	DrainTime     time.Duration // --drain-time-s; negative means not given
	DrainStrategy string        // --drain-strategy
	DrainOrder    string        // --drain-order
	DrainIdle     time.Duration // --drain-idle-time
	SettleTime    time.Duration // --settle-time
	// Upgrade takes over from the sidecar that has the data folder: --upgrade
	Upgrade bool
	// ParentShutdownTime is how long this process may stay once a successor serves:
	// --parent-shutdown-time-s
	ParentShutdownTime time.Duration
	// --base-id: sidecars of a host share nothing, so each value is right.
	BaseID uint32
}

// Common says whether the configuration comes from a control plane named by flag.
func (o *Options) Common() bool { return o.ControlPlane != "" }

// Secure says whether other sidecars are spoken with over mutual TLS.
func (o *Options) Secure() bool {
	return o.Common() && (o.MutualTLS == "on" || o.MutualTLS == "" && o.TrustBundle != "")
}

// nameRule is what a service and an instance may be called: they become host
// names, resource names and folder names.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

var serviceRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// setDefaults fills in what was not given. hostname is the host's name.
func (o *Options) setDefaults(hostname string) {
	setText := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	if o.Common() {
		setText(&o.Inbound, defaultInbound)
		setText(&o.Outbound, defaultOutbound)
		setText(&o.Admin, defaultAdmin)
		setText(&o.Data, defaultData)
		own := o.Inbound
		if o.App == "" { // it listens for its callers only
			own = o.Outbound
		}
		setText(&o.ID, defaultID(hostname, own))
	}
	if o.DrainTime < 0 { // not given
		o.DrainTime = defaultDrainEnvoy
		if o.Common() {
			o.DrainTime = defaultDrainCommon
		}
	}
	switch {
	case o.Concurrency < 0: // not given
		o.Concurrency = runtime.NumCPU()
	case o.Concurrency == 0: // as Envoy reads it
		o.Concurrency = 1
	}
}

// defaultID is the same after a restart and an upgrade, so that an instance takes its own
// place again, and different for two sidecars of a host: listening is where it listens.
// Another loopback address tells it apart where the port does not.
func defaultID(hostname, listening string) string {
	plain := func(s string) string {
		return strings.Trim(regexp.MustCompile(`[^A-Za-z0-9._-]+`).ReplaceAllString(s, "-"), "-._")
	}
	if hostname = plain(hostname); hostname == "" {
		hostname = "host"
	}
	host, port, err := net.SplitHostPort(listening)
	if err != nil || port == "0" {
		return hostname + "-" + strconv.Itoa(os.Getpid())
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() && host != "127.0.0.1" {
		port = plain(host) + "-" + port
	}
	return hostname + "-" + port
}

// validate returns every fault, each naming its flag.
func (o *Options) validate() error {
	c := &check{}
	o.validateSource(c)
	if o.Common() {
		o.validateCommon(c)
	}
	o.validateProcess(c)
	return errors.Join(c.faults...)
}

// check collects faults.
type check struct{ faults []error }

func (c *check) fault(flag, format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf("--"+flag+": "+format, args...))
}

// validateSource checks that it is clear where the configuration comes from.
func (o *Options) validateSource(c *check) {
	bootstrap := o.ConfigPath != "" || o.ConfigYAML != ""
	switch {
	case o.Common() && bootstrap:
		c.fault("controlplane", "not together with --config-path or --config-yaml: a bootstrap names its control plane itself")
	case o.Common() && o.Service == "":
		c.fault("service", "required with --controlplane")
	case !o.Common() && !bootstrap && o.Service != "":
		c.fault("controlplane", "required with --service (or give a bootstrap with --config-path)")
	case !o.Common() && !bootstrap:
		c.fault("service", "give --service and --controlplane, or a bootstrap with --config-path (see sidecar --help)")
	}
	if o.Service != "" && !serviceRule.MatchString(o.Service) {
		c.fault("service", "%q: want lower-case letters, digits, '-' and '.', at most 63", o.Service)
	}
	if o.Common() || !bootstrap {
		return
	}
	for _, f := range []struct {
		flag  string
		given bool
	}{
		{"app", o.App != ""},
		{"inbound", o.Inbound != ""},
		{"outbound", o.Outbound != ""},
		{"health", o.HealthPath != ""},
		{"tcp-outbound", len(o.TCPOutbound) > 0},
		{"token-file", o.TokenFile != ""},
		{"insecure-xds", o.InsecureXDS},
		{"trust-bundle", o.TrustBundle != ""},
		{"trust-domain", o.TrustDomain != ""},
		{"mutual-tls", o.MutualTLS != ""},
	} {
		if f.given {
			c.fault(f.flag, "only with --controlplane: a bootstrap says this itself")
		}
	}
}

func (o *Options) validateCommon(c *check) {
	if !strings.HasPrefix(o.ControlPlane, "unix:") {
		c.hostPort("controlplane", o.ControlPlane, false)
	}
	if o.App != "" {
		if strings.HasPrefix(o.App, "unix:") {
			c.fault("app", "%q: a Unix socket as the application is not supported", o.App)
		} else {
			c.hostPort("app", o.App, false)
		}
	} else if o.HealthPath != "" {
		c.fault("health", "needs --app: there is no application to check")
	}
	if o.HealthPath != "" && o.HealthPath[0] != '/' {
		c.fault("health", "%q: want a path that begins with /", o.HealthPath)
	}
	if o.App != "" && strings.HasPrefix(o.Inbound, "unix:") {
		c.fault("inbound", "%q: other sidecars cannot reach a Unix socket; want ADDRESS:PORT", o.Inbound)
	}
	c.listen("inbound", o.Inbound)
	c.listen("outbound", o.Outbound)
	o.validateTCPOutbound(c)
	if o.Inbound == o.Outbound || o.Outbound == o.Admin || o.Inbound == o.Admin {
		c.fault("inbound", "inbound %s, outbound %s and admin %s must differ", o.Inbound, o.Outbound, o.Admin)
	}
	switch o.OutboundPolicy {
	case "", "registry-only":
	case "allow-any":
		c.fault("outbound-policy", "allow-any is not supported in this version; want registry-only")
	default:
		c.fault("outbound-policy", "%q: want registry-only", o.OutboundPolicy)
	}
	if o.TrustDomain != "" {
		if err := identity.CheckTrustDomain(o.TrustDomain); err != nil {
			c.fault("trust-domain", "%v", err)
		}
	}
	if o.MutualTLS != "" && o.MutualTLS != "on" && o.MutualTLS != "off" {
		c.fault("mutual-tls", "%q: want on or off", o.MutualTLS)
	}
	if o.TrustBundle != "" {
		if err := checkBundle(o.TrustBundle); err != nil {
			c.fault("trust-bundle", "%v", err)
		}
		if o.InsecureXDS {
			c.fault("insecure-xds", "not together with --trust-bundle, which makes the connection TLS")
		}
	}
	if !nameRule.MatchString(o.ID) {
		c.fault("id", "%q: want letters, digits, '.', '_' and '-', at most 253", o.ID)
	}
	for k := range o.Labels {
		if !nameRule.MatchString(k) {
			c.fault("label", "key %q: want letters, digits, '.', '_' and '-'", k)
		}
	}
}

// validateProcess checks what goes with either source.
func (o *Options) validateProcess(c *check) {
	if o.DNS != "" {
		if _, _, err := o.dnsConfig(); err != nil {
			c.faults = append(c.faults, err)
		}
	} else if o.DNSRange != "" {
		c.fault("dns-range", "needs --dns")
	}
	if o.Admin != "" {
		c.listen("admin", o.Admin)
		if !loopback(o.Admin) && o.AdminTokenFile == "" {
			c.fault("admin", "%s is not loopback: give --admin-token-file, or listen on 127.0.0.1 or unix:PATH", o.Admin)
		}
	}
	if o.Upgrade && o.Data == "" {
		c.fault("upgrade", "needs --data: the running sidecar is found in its folder")
	}
	if _, err := parseLevel(o.LogLevel); err != nil {
		c.fault("log-level", "%v", err)
	}
	if !slices.Contains([]string{"gradual", "immediate"}, o.DrainStrategy) {
		c.fault("drain-strategy", "%q: want gradual or immediate", o.DrainStrategy)
	}
	if !slices.Contains([]string{drainTogether, drainInboundFirst}, o.DrainOrder) {
		c.fault("drain-order", "%q: want %s or %s", o.DrainOrder, drainTogether, drainInboundFirst)
	} else if o.DrainOrder == drainInboundFirst && o.Common() && o.App == "" {
		c.fault("drain-order", "%s needs --app: it waits until the application has gone", drainInboundFirst)
	} else if o.DrainOrder == drainInboundFirst && !o.Common() {
		c.fault("drain-order", "%s only with --controlplane: a bootstrap does not say where the application is", drainInboundFirst)
	}
	for _, f := range []struct {
		flag string
		d    time.Duration
	}{{"drain-idle-time", o.DrainIdle}, {"settle-time", o.SettleTime}} {
		if f.d < 0 || f.d > time.Hour {
			c.fault(f.flag, "%v: want 0 to 1h", f.d)
		}
	}
	if strings.IndexByte(o.EventLog, 0) >= 0 {
		c.fault("event-log", "%q: is no path", o.EventLog)
	}
	if o.Concurrency > 1024 {
		c.fault("concurrency", "%d: want at most 1024", o.Concurrency)
	}
	if o.MaxResponseBytes < 1<<20 || o.MaxResponseBytes > 1<<30 {
		c.fault("xds-max-response-bytes", "%d: want 1048576 to 1073741824", o.MaxResponseBytes)
	}
	switch o.Mode {
	case "serve", "validate":
	case "init_only":
		c.fault("mode", "init_only is not supported; want serve or validate")
	default:
		c.fault("mode", "%q: want serve or validate", o.Mode)
	}
	for _, f := range []struct{ flag, path string }{
		{"token-file", o.TokenFile}, {"admin-token-file", o.AdminTokenFile}, {"config-path", o.ConfigPath},
	} {
		if f.path == "" {
			continue
		}
		if info, err := os.Stat(f.path); err != nil {
			c.fault(f.flag, "%s: %v", f.path, bare(err))
		} else if info.IsDir() {
			c.fault(f.flag, "%s is a folder, want a file", f.path)
		}
	}
}

// bare is the reason alone, for messages that name the file themselves.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// checkBundle says what is wrong with a file of roots.
func checkBundle(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if _, err := identity.DecodeCertificates(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (c *check) hostPort(flag, value string, emptyHost bool) {
	host, port, err := net.SplitHostPort(value)
	if err != nil || host == "" && !emptyHost {
		c.fault(flag, "%q: want HOST:PORT", value)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && !emptyHost {
		c.fault(flag, "%q: port %q: want a number from 1 to 65535", value, port)
	}
}

// listen checks an address to listen on: unix:PATH, or [HOST]:PORT with an IP
// address or localhost; port 0 takes a free one.
func (c *check) listen(flag, value string) {
	if path, ok := strings.CutPrefix(value, "unix:"); ok {
		// sun_path holds 108 bytes with the terminating zero (unix(7)).
		if path == "" || len(path) > 107 {
			c.fault(flag, "%q: want unix:PATH with a path of 1 to 107 bytes", value)
		}
		return
	}
	c.hostPort(flag, value, true)
	host, _, err := net.SplitHostPort(value)
	if err != nil || host == "" || host == "localhost" {
		return
	}
	if _, err := netip.ParseAddr(host); err != nil {
		c.fault(flag, "%q: want an IP address to listen on, not a name", value)
	}
}

func loopback(listen string) bool {
	if strings.HasPrefix(listen, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// dataDir is the absolute path of the data folder, empty when nothing is kept.
func (o *Options) dataDir() (string, error) {
	if o.Data == "" {
		return "", nil
	}
	return filepath.Abs(o.Data)
}
