// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/authority"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

func newCA(c *client) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Show and rotate the certificate authority, make bootstrap tokens",
		Long: `ca talks to a running control plane about the mesh's certificate authority.

A new root is first announced: it is in the trust bundle of every sidecar before it
signs. The old one then stays in the bundle until all that it signed has expired.
An authority given to serve with --ca-cert rotates when its files are replaced.`,
		Example: `  controlplane ca status
  controlplane ca bundle > roots.pem                  # for sidecar --trust-bundle
  controlplane ca token --service orders > token      # for sidecar --token-file
  controlplane ca rotate`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCAStatus(c), newCABundle(c), newCARotate(c), newCAToken(c))
	return cmd
}

func newCAStatus(c *client) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the roots, their phases and dates",
		Example: "  controlplane ca status\n  controlplane ca status -o json | jq '.roots[].phase'",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, outputJSON...); err != nil {
				return err
			}
			return c.showAuthority(cmd.Context(), http.MethodGet, "/v1/ca", nil, output)
		},
	}
	bindOutput(cmd, &output, "", "json for scripts", outputJSON...)
	return c.bind(cmd)
}

func newCARotate(c *client) *cobra.Command {
	var output string
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Announce a new root, which signs after the overlap",
		Long: `rotate makes a new root and announces it. It signs after the overlap, which is the
life of certificates by default: whoever holds a valid certificate knows the root
then. A shorter overlap is for an emergency: sidecars that are out of reach
meanwhile do not trust new certificates until they are back.`,
		Example: "  controlplane ca rotate\n  controlplane ca rotate --overlap 5m",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, outputJSON...); err != nil {
				return err
			}
			body := map[string]any{}
			if cmd.Flags().Changed("overlap") {
				if overlap <= 0 {
					return exitWith(exitUsage, "--overlap: want more than 0, got %s", overlap)
				}
				body["overlap"] = overlap.String()
			}
			data, err := json.Marshal(body)
			if err != nil {
				return err
			}
			return c.showAuthority(cmd.Context(), http.MethodPost, "/v1/ca/rotate", data, output)
		},
	}
	cmd.Flags().DurationVar(&overlap, "overlap", 0, "how long the new root is in the trust bundle before it signs (default that of serve)")
	cmd.Flags().Lookup("overlap").DefValue = "0s" // the text names it
	bindOutput(cmd, &output, "", "json for scripts", outputJSON...)
	return c.bind(cmd)
}

func (c *client) showAuthority(ctx context.Context, method, path string, body []byte, output string) error {
	var raw json.RawMessage
	if _, err := c.call(ctx, method, path, nil, body, &raw); err != nil {
		return err
	}
	if output == "json" {
		return writeRaw(c.io.out, output, raw)
	}
	var s authority.Status
	if err := json.Unmarshal(raw, &s); err != nil {
		return c.stranger(err)
	}
	return c.printAuthority(s, time.Now())
}

func (c *client) printAuthority(s authority.Status, now time.Time) error {
	origin := "its own authority"
	if s.Given {
		origin = "an outside authority"
	}
	fmt.Fprintf(c.io.out, "trust domain %s, %s\n", printable(s.TrustDomain), origin)
	fmt.Fprintf(c.io.out, "certificates of sidecars live %s; issuer %s until %s\n",
		time.Duration(s.LeafSeconds*float64(time.Second)), printable(s.IssuerSubject), date(s.IssuerNotAfter))
	if s.FilesError != "" {
		fmt.Fprintf(c.io.out, "%s files are not taken, the last good ones are in force: %s\n", paint(c.io.out, red, "!"), printable(s.FilesError))
	}
	if s.Warning != "" {
		fmt.Fprintf(c.io.out, "%s %s\n", paint(c.io.out, yellow, "!"), printable(s.Warning))
	}
	fmt.Fprintln(c.io.out)
	rows := make([][]string, len(s.Roots))
	for i, r := range s.Roots {
		next := "-"
		switch r.Phase {
		case identity.Announced:
			next = "signs at " + date(r.SignsAt)
		case identity.Retiring:
			next = "leaves at " + date(r.LeavesAt)
		}
		rows[i] = []string{r.Fingerprint[:min(16, len(r.Fingerprint))], string(r.Phase), next, age(r.AnnouncedAt, now), date(r.NotAfter)}
	}
	return table(c.io.out, []string{"ROOT", "PHASE", "NEXT", "AGE", "EXPIRES"}, rows)
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func newCABundle(c *client) *cobra.Command {
	return c.bind(&cobra.Command{
		Use:     "bundle",
		Short:   "Write the roots in PEM, for sidecar --trust-bundle",
		Example: "  controlplane ca bundle > roots.pem",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s authority.Status
			if _, err := c.call(cmd.Context(), http.MethodGet, "/v1/ca", nil, nil, &s); err != nil {
				return err
			}
			_, err := fmt.Fprint(c.io.out, s.Bundle)
			return err
		},
	})
}

func newCAToken(c *client) *cobra.Command {
	var services []string
	var life time.Duration
	var output string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a bootstrap token, with which sidecars get their first certificate",
		Long: `token makes a bootstrap token that is good for sidecars of the named services only.
A sidecar needs it again when it restarts, because its key is never written. Keep it
as a secret; it cannot be taken back before it expires.`,
		Example: "  controlplane ca token --service orders --life 24h > token",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, outputJSON...); err != nil {
				return err
			}
			if len(services) == 0 {
				return exitWith(exitUsage, "--service: name the services that the token is good for")
			}
			body, err := json.Marshal(map[string]any{"services": services, "life": life.String()})
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if _, err := c.call(cmd.Context(), http.MethodPost, "/v1/ca/tokens", nil, body, &raw); err != nil {
				return err
			}
			if output == "json" {
				return writeRaw(c.io.out, output, raw)
			}
			var answer struct {
				Token   string
				Expires time.Time
			}
			if err := json.Unmarshal(raw, &answer); err != nil {
				return c.stranger(err)
			}
			fmt.Fprintf(c.io.err, "good until %s\n", date(answer.Expires))
			_, err = fmt.Fprintln(c.io.out, answer.Token)
			return err
		},
	}
	cmd.Flags().StringSliceVar(&services, "service", nil, "service that the token is good for; may be repeated")
	cmd.Flags().DurationVar(&life, "life", time.Hour, "how long the token is good, 720h at most")
	bindOutput(cmd, &output, "", "json for scripts", outputJSON...)
	return c.bind(cmd)
}
