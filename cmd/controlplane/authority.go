// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/authority"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/sidecarservice"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

const (
	defaultXDS  = "127.0.0.1:15010"
	defaultMTLS = ":15012"
)

// authorityOptions are the flags of serve about identities.
type authorityOptions struct {
	trustDomain           string
	certificate, key, top string
	life, overlap         time.Duration
}

func (o *authorityOptions) bind(f *pflag.FlagSet) {
	f.StringVar(&o.trustDomain, "trust-domain", identity.DefaultTrustDomain, "trust domain of the mesh's SPIFFE IDs; it cannot change later")
	f.StringVar(&o.certificate, "ca-cert", "", "file with an outside authority's certificate and those above it, read again when it changes")
	f.StringVar(&o.key, "ca-key", "", "file with the key of --ca-cert")
	f.StringVar(&o.top, "ca-root", "", "file with the root above --ca-cert, where that does not end with it")
	f.DurationVar(&o.life, "cert-life", identity.DefaultLeafLife, "how long certificates of sidecars live; they are renewed at half of it")
	f.DurationVar(&o.overlap, "ca-overlap", 0, "how long a new root is in the trust bundle before it signs (default --cert-life)")
	f.Lookup("ca-overlap").DefValue = "0s" // the text names it
}

func (o *authorityOptions) check() error {
	if err := identity.CheckTrustDomain(o.trustDomain); err != nil {
		return exitWith(exitUsage, "--trust-domain: %w", err)
	}
	if o.life < identity.MinLeafLife || o.life > identity.MaxLeafLife {
		return exitWith(exitUsage, "--cert-life: want %s to %s, got %s", identity.MinLeafLife, identity.MaxLeafLife, o.life)
	}
	if o.overlap < 0 {
		return exitWith(exitUsage, "--ca-overlap: must not be negative")
	}
	switch {
	case o.certificate != "" && o.key == "":
		return exitWith(exitUsage, "--ca-key: required with --ca-cert")
	case o.certificate == "" && o.key != "":
		return exitWith(exitUsage, "--ca-cert: required with --ca-key")
	case o.certificate == "" && o.top != "":
		return exitWith(exitUsage, "--ca-cert: required with --ca-root")
	}
	return nil
}

// openAuthority opens the mesh's authority in the data folder.
func (o *serveOptions) openAuthority(log *slog.Logger) (*authority.Runner, error) {
	a := o.authority
	r, err := authority.Open(authority.Config{
		Dir: filepath.Join(o.data, "ca"), TrustDomain: a.trustDomain, LeafLife: a.life, Overlap: a.overlap,
		CertificateFile: a.certificate, KeyFile: a.key, RootFile: a.top, Logger: log,
	})
	if err != nil {
		return nil, exitWith(exitCannotServe, "certificate authority: %w", err)
	}
	return r, nil
}

// authorizeNode lets a caller that is known to be of a service be only nodes of it.
func authorizeNode(ctx context.Context, n server.Node) error {
	caller := sidecarservice.CallerOf(ctx)
	service := controlplane.ServiceOf(n)
	if caller.Allows(service) && caller.AllowsNode(n.ID) {
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "node %q: is of service %q, for which the caller's %s is not good", n.ID, service, caller.Means)
}

// mayHaveSecrets lets those have the keys of sessions who may have a certificate: callers
// with one, or with a token, and where the port asks for neither, those on this host.
func mayHaveSecrets(ctx context.Context) bool { return sidecarservice.CallerOf(ctx).Means != "" }

// writeAuthorityMetrics appends what the authority did as Prometheus text.
func (p *plane) writeAuthorityMetrics(w io.Writer) {
	const prefix = "outrigger_controlplane_"
	head := func(name, kind, help string) {
		fmt.Fprintf(w, "# HELP %[1]s%[2]s %[3]s\n# TYPE %[1]s%[2]s %[4]s\n", prefix, name, help, kind)
	}
	issued, refused := p.sidecar.Certificates()
	head("certificates_issued_total", "counter", "Certificates signed for sidecars, by how the caller was known.")
	for _, m := range slices.Sorted(maps.Keys(issued)) {
		fmt.Fprintf(w, "%scertificates_issued_total{means=%q} %d\n", prefix, string(m), issued[m])
	}
	head("certificates_refused_total", "counter", "Requests for certificates that were refused, by reason.")
	for _, r := range slices.Sorted(maps.Keys(refused)) {
		fmt.Fprintf(w, "%scertificates_refused_total{reason=%q} %d\n", prefix, string(r), refused[r])
	}
	callers := p.ca.RefusedCallers()
	head("callers_refused_total", "counter", "Callers of the xDS ports that were not let in, by reason.")
	for _, r := range slices.Sorted(maps.Keys(callers)) {
		fmt.Fprintf(w, "%scallers_refused_total{reason=%q} %d\n", prefix, string(r), callers[r])
	}
	s := p.ca.Status()
	for _, m := range []struct {
		name, help string
		at         time.Time
	}{
		{"issuer_expiration_seconds", "When the certificate that signs expires, Unix time.", s.IssuerNotAfter},
		{"serving_certificate_expiration_seconds", "When the control plane's own certificate expires, Unix time.", s.ServingNotAfter},
	} {
		head(m.name, "gauge", m.help)
		fmt.Fprintf(w, "%s%s %d\n", prefix, m.name, m.at.Unix())
	}
	head("trust_bundle_roots", "gauge", "Roots in the trust bundle.")
	fmt.Fprintf(w, "%strust_bundle_roots %d\n", prefix, len(s.Roots))
}
