// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// certs is /certs of a sidecar, in Envoy's format.
type certs struct {
	Certificates []struct {
		CA    []certificate `json:"ca_cert"`
		Chain []certificate `json:"cert_chain"`
	} `json:"certificates"`
}

type certificate struct {
	Serial string `json:"serial_number"`
	Names  []struct {
		URI string `json:"uri"`
	} `json:"subject_alt_names"`
	Days    string    `json:"days_until_expiration"`
	Expires time.Time `json:"expiration_time"`
}

// identityOf reads a sidecar's own certificate and how many roots it trusts.
func identityOf(s *mesh.Sidecar) (own certificate, roots int, err error) {
	body, err := mesh.Get("http://" + s.Admin + "/certs")
	if err != nil {
		return own, 0, err
	}
	var c certs
	if err := json.Unmarshal([]byte(body), &c); err != nil {
		return own, 0, err
	}
	if len(c.Certificates) != 1 || len(c.Certificates[0].Chain) == 0 || len(c.Certificates[0].Chain[0].Names) != 1 {
		return own, 0, fmt.Errorf("no certificate: %s", body)
	}
	return c.Certificates[0].Chain[0], len(c.Certificates[0].CA), nil
}

// TestSidecarsKeepTheirIdentityOverMutualTLS: sidecars reach the control plane over
// mutual TLS only, with lives of seconds; the trust bundle rolls over and the control
// plane is killed and comes back, under load. No request fails, and no key leaves a
// sidecar.
func TestSidecarsKeepTheirIdentityOverMutualTLS(t *testing.T) {
	t.Parallel() // it mostly waits for certificates to grow old
	secure := mesh.FreeAddress(t)
	m := mesh.New(t, "--xds-mtls", secure, "--cert-life", "8s")
	roots := filepath.Join(m.Dir, "roots.pem")
	ca := func(args ...string) string {
		t.Helper()
		f := mesh.Run(t, "", append([]string{mesh.Program("controlplane"), "ca"}, append(args, "--server", m.ControlPlane.URL(""))...)...)
		if f.Code != 0 {
			t.Fatal(f.Output)
		}
		return f.Output
	}
	save := func(path, content string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	save(roots, ca("bundle"))
	token := func(service string) string {
		t.Helper()
		var answer struct{ Token string }
		if err := json.Unmarshal([]byte(ca("token", "--service", service, "-o", "json")), &answer); err != nil {
			t.Fatal(err)
		}
		return save(filepath.Join(m.Dir, service+".token"), answer.Token)
	}
	start := func(service, id, app string) *mesh.Sidecar {
		return mesh.StartSidecar(t, m.Dir, mesh.SidecarOptions{
			Service: service, ID: id, App: app, XDS: secure, Flags: []string{"--trust-bundle", roots, "--token-file", token(service)},
		})
	}
	app := mesh.StartApp(t, m.Dir, "orders-1")
	sidecars := map[string]*mesh.Sidecar{"orders": start(orders, "orders-1", app.Address), "web": start("web", "web-1", "")}
	for _, s := range sidecars {
		s.AwaitReady()
	}
	m.AwaitInstance(orders, "orders-1", true)
	m.AwaitAnswers(sidecars["web"], orders, "orders-1")
	load := mesh.StartLoad(t, mesh.LoadConfig{Address: sidecars["web"].Outbound, Host: orders, Conns: 10, Rate: 100})
	load.AwaitSent(20)

	serials := map[string]string{}
	await := func(what string, holds func(own certificate, roots int) bool) {
		t.Helper()
		for name, s := range sidecars {
			s.Await(30*time.Second, name+": "+what, func() error {
				own, n, err := identityOf(s)
				if err != nil {
					return err
				}
				if want := "spiffe://outrigger.local/ns/default/sa/" + name; own.Names[0].URI != want {
					t.Fatalf("%s is %s", name, own.Names[0].URI)
				}
				if !holds(own, n) || !time.Now().Before(own.Expires) {
					return fmt.Errorf("serial %s, %d roots", own.Serial, n)
				}
				serials[name] = own.Serial
				return nil
			})
		}
	}
	await("has an identity", func(certificate, int) bool { return true })
	first := map[string]string{"orders": serials["orders"], "web": serials["web"]}
	await("renews", func(own certificate, _ int) bool { return own.Serial != first["orders"] && own.Serial != first["web"] })
	for _, s := range sidecars {
		s.AwaitStat("server.days_until_first_cert_expiring", func(days int) bool { return days == 0 })
	}
	ca("rotate")
	await("knows the new root", func(_ certificate, n int) bool { return n == 2 })
	m.ControlPlane.Kill()
	m.ControlPlane.Restart()
	before := map[string]string{"orders": serials["orders"], "web": serials["web"]}
	await("renews after the control plane was killed", func(own certificate, _ int) bool {
		return own.Serial != before["orders"] && own.Serial != before["web"]
	})
	await("has forgotten the old root", func(_ certificate, n int) bool { return n == 1 })
	load.AwaitSent(20)
	tally := load.Stop()
	tally.Flawless(t, "while identities were rotated")

	noKeyOnDisk(t, slices.Collect(maps.Values(sidecars))...)
}
