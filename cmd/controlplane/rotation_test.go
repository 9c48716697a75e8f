// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
	"github.com/outrigger-mesh/outrigger/pkg/controlplane/authority"
	"github.com/outrigger-mesh/outrigger/pkg/identity"
)

func (d *secureDaemon) authority() authority.Status {
	d.t.Helper()
	var s authority.Status
	if err := json.Unmarshal([]byte(d.run("", "ca", "status", "-o", "json").out), &s); err != nil {
		d.t.Fatal(err)
	}
	return s
}

func phasesOf(s authority.Status) string {
	var out []string
	for _, r := range s.Roots {
		out = append(out, string(r.Phase))
	}
	return strings.Join(out, " ")
}

// trusts says what a sidecar's bundle makes of another's certificate now.
func trusts(t *testing.T, one, other *identity.Credentials) error {
	t.Helper()
	pool, err := identity.Pool(one.TrustBundle)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := identity.DecodeCertificates(other.CertificateChain)
	if err != nil {
		t.Fatal(err)
	}
	_, err = identity.VerifyPeer(time.Now(), chain, pool, identity.DefaultTrustDomain)
	return err
}

// TestATrustBundleRollsOverWithOverlap: short lives, two sidecars that renew all the
// time, a rotation. At no moment does one refuse the other, each call succeeds, and
// certificates of both roots are valid side by side.
func TestATrustBundleRollsOverWithOverlap(t *testing.T) {
	t.Parallel() // it mostly waits for certificates to grow old
	d := serveSecure(t, t.TempDir(), "--cert-life", "6s")
	a, b := d.keeper("orders"), d.keeper("payments")
	d.keep(d.dial(a.ClientTLS(), d.token("orders")), "orders", a)
	d.keep(d.dial(b.ClientTLS(), d.token("payments")), "payments", b)
	until(t, "there are certificates", func() bool { return a.Credentials() != nil && b.Credentials() != nil })
	first := a.Credentials()
	d.want(d.run("", "ca", "rotate"), 0, "announced")
	d.want(d.run("", "ca", "rotate"), exitConflict, "a rotation is under way")
	check := func() {
		t.Helper()
		for _, x := range [][2]*identity.Credentials{{a.Credentials(), b.Credentials()}, {b.Credentials(), a.Credentials()}} {
			if err := trusts(t, x[0], x[1]); err != nil {
				t.Fatal(err)
			}
		}
		conn := d.dial(a.ClientTLS(), "") // a handshake with the certificate of now
		_, err := sidecarv1.NewSidecarServiceClient(conn).Deregister(within(t), &sidecarv1.DeregisterRequest{Instance: &sidecarv1.InstanceKey{Service: "orders", Id: "none"}})
		if err := errors.Join(err, conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the new root is known before it signs", func() bool {
		check()
		return rootsOf(t, a) == 2 && rootsOf(t, b) == 2
	})
	if got := phasesOf(d.authority()); got != "signing announced" {
		t.Errorf("phases: %s", got)
	}
	old := a.Credentials()
	until(t, "both roots' certificates are valid at the same time", func() bool {
		check()
		now := a.Credentials()
		if rooted(t, now) == rooted(t, first) {
			old = now
			return false
		}
		if err := trusts(t, b.Credentials(), old); err != nil {
			t.Fatalf("the old root's certificate: %v", err)
		}
		return trusts(t, b.Credentials(), now) == nil
	})
	until(t, "the old root has left every bundle", func() bool {
		check()
		return phasesOf(d.authority()) == "signing" && rootsOf(t, a) == 1 && rootsOf(t, b) == 1
	})
	check()
	if got := d.metric("trust_bundle_roots"); got != "1" {
		t.Errorf("roots: %s", got)
	}
}

func rootsOf(t *testing.T, s identity.Source) int {
	t.Helper()
	list, err := identity.DecodeCertificates(s.Credentials().TrustBundle)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// rooted names the issuer of the issuer: the root.
func rooted(t *testing.T, c *identity.Credentials) string {
	t.Helper()
	chain, err := identity.DecodeCertificates(c.CertificateChain)
	if err != nil {
		t.Fatal(err)
	}
	return chain[len(chain)-1].Issuer.String()
}

func TestAControlPlaneThatIsKilledDuringARotationComesBackWithTheSameAuthority(t *testing.T) {
	data := t.TempDir()
	d := serveSecure(t, data)
	keeper := d.keeper("orders")
	d.keep(d.dial(keeper.ClientTLS(), d.token("orders")), "orders", keeper)
	until(t, "there is a certificate", func() bool { return keeper.Credentials() != nil })
	d.want(d.run("", "ca", "rotate"), 0, "announced")
	before := d.authority()
	d.kill()
	// What a write that was cut off leaves behind.
	if err := os.WriteFile(filepath.Join(data, "ca", "authority.json.new"), []byte(`{"version":1,`), 0o600); err != nil {
		t.Fatal(err)
	}
	again := serveSecure(t, data)
	after := again.authority()
	if phasesOf(after) != "signing announced" || after.Bundle != before.Bundle || after.Roots[1].SignsAt != before.Roots[1].SignsAt {
		t.Errorf("before %+v, after %+v", before.Roots, after.Roots)
	}
	// The certificate of before is good, and so is the new control plane's.
	if err := askFor(within(t), again.dial(keeper.ClientTLS(), ""), "orders"); err != nil {
		t.Error(err)
	}
	again.kill()
	// A damaged file is said, not replaced.
	if err := os.WriteFile(filepath.Join(data, "ca", "authority.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", "serve", "--data", data, "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0")
	if r.code != exitCannotServe || !strings.Contains(r.err, "authority.json: damaged") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
}

func TestAnOutsideAuthoritysFilesAreReadAgain(t *testing.T) {
	o := newOutside(t, t.TempDir())
	d := serveSecure(t, t.TempDir(), "--ca-cert", o.cert, "--ca-key", o.key, "--ca-overlap", "1s")
	keeper := d.keeper("orders")
	d.keep(d.dial(keeper.ClientTLS(), d.token("orders")), "orders", keeper)
	until(t, "there is a certificate", func() bool { return keeper.Credentials() != nil })
	first := o.issuer
	if err := leafOf(t, keeper).CheckSignatureFrom(first); err != nil {
		t.Error(err)
	}
	d.want(d.run("", "ca", "rotate"), exitConflict, "rotates when its files are replaced")
	good, err := os.ReadFile(o.cert)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, o.cert, "rubbish")
	until(t, "the fault is shown", func() bool { return d.authority().FilesError != "" })
	d.want(d.run("", "ca", "status"), 0, "an outside authority", "files are not taken")
	if err := askFor(within(t), d.dial(keeper.ClientTLS(), ""), "orders"); err != nil {
		t.Errorf("with the last good files: %v", err)
	}
	writeFile(t, o.cert, string(good))
	until(t, "the fault is gone", func() bool { return d.authority().FilesError == "" })
	o.replace()
	until(t, "the new root is in the bundle, and later signs", func() bool { return rootsOf(t, keeper) == 2 && phasesOf(d.authority()) == "retiring signing" })
	if err := askFor(within(t), d.dial(keeper.ClientTLS(), ""), "orders"); err != nil {
		t.Error(err)
	}
}

func leafOf(t *testing.T, s identity.Source) *x509.Certificate {
	t.Helper()
	c := s.Credentials()
	pair, err := tls.X509KeyPair(c.CertificateChain, c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}
