// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

// What names the sidecar's own secrets is held until the process has them; newer ones
// come into use at once; none of them is on disk or in a dump.
func TestOwnSecretsAreProvidedByTheProcessItself(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{ADS: true})
	packed, err := anypb.New(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: resource.IdentitySecret}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p := good("ads", "7")
	p[resourcev3.ClusterType] = append(p[resourcev3.ClusterType], &clusterv3.Cluster{
		Name: "secure", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, ConnectTimeout: durationpb.New(time.Second),
		TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed}},
	})
	s.Set(t, nodeID, snapshot(t, "7", p))
	dir := t.TempDir()
	c := start(t, bootstrapFor(t, "ads", s), settings{store: client.NewLastGood(dir)})
	const chain = "what everybody may see"
	secret := func(key string) *resource.Secret {
		return &resource.Secret{Name: resource.IdentitySecret, Certificate: &resource.TLSCertificate{
			Chain: resource.DataSource{Inline: []byte(chain)}, Key: resource.DataSource{Inline: []byte(key)},
		}}
	}
	// Routes come last. A response is answered and what it brought is put together in one
	// turn, which Status waits for.
	for _, kind := range []string{resourcev3.ClusterType, resourcev3.RouteType} {
		s.Wait(t, "acceptance of "+kind, func(e xdstest.Exchange) bool { return e.Request && e.Type == kind && e.Version == "7" })
	}
	if n := c.client.Status().Held; n == 0 {
		t.Error("nothing is held")
	}
	if got := c.snapshots(); len(got) > 0 {
		t.Fatalf("a snapshot was published without the secret: %v", got[0].Clusters)
	}
	c.client.Provide(secret("hunter2"))
	c.wait(t, "the cluster with its secret", func(s *resource.Snapshot) bool {
		x := s.Secrets[resource.IdentitySecret]
		return s.Clusters["secure"] != nil && x != nil && string(x.Certificate.Key.Inline) == "hunter2"
	})
	c.client.Provide(secret("hunter3"))
	c.wait(t, "the next secret", func(s *resource.Snapshot) bool {
		return string(s.Secrets[resource.IdentitySecret].Certificate.Key.Inline) == "hunter3"
	})
	text, err := c.client.Dump(true)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(resource.IdentitySecret)) || !bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString([]byte(chain)))) {
		t.Errorf("the dump does not show the certificate")
	}
	if bytes.Contains(text, []byte("hunter")) || bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString([]byte("hunter3")))) {
		t.Error("the dump shows the key")
	}
	c.stop()
	onDisk, err := os.ReadFile(filepath.Join(dir, "xds-last-good"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(onDisk, []byte("hunter")) || !bytes.Contains(onDisk, []byte("secure")) {
		t.Error("the copy on disk holds the secret, or not the cluster")
	}
}
