// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/freeport/freeporttest"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// envoyCase is a cluster as Envoy and as we are told of it.
type envoyCase struct {
	name    string
	policy  string         // lb_policy
	config  map[string]any // Envoy's
	ours    resource.LoadBalancing
	weights []uint32
	common  map[string]any // common_lb_config
}

var equalWeights, otherWeights = []uint32{1, 1, 1, 1, 1, 1, 1}, []uint32{1, 2, 3, 5, 8, 1, 13}

var envoyCases = []envoyCase{
	{"ring", "RING_HASH", nil, resource.LoadBalancing{Policy: resource.RingHash}, equalWeights, nil},
	{"ring-weighted", "RING_HASH", map[string]any{"minimum_ring_size": 300},
		resource.LoadBalancing{Policy: resource.RingHash, MinRingSize: 300}, otherWeights, nil},
	{"ring-cut", "RING_HASH", map[string]any{"minimum_ring_size": 20, "maximum_ring_size": 100},
		resource.LoadBalancing{Policy: resource.RingHash, MinRingSize: 20, MaxRingSize: 100}, otherWeights, nil},
	{"murmur", "RING_HASH", map[string]any{"hash_function": "MURMUR_HASH_2"},
		resource.LoadBalancing{Policy: resource.RingHash, MurmurHash: true}, equalWeights, nil},
	{"maglev", "MAGLEV", nil, resource.LoadBalancing{Policy: resource.Maglev}, equalWeights, nil},
	{"maglev-weighted", "MAGLEV", map[string]any{"table_size": 1009},
		resource.LoadBalancing{Policy: resource.Maglev, TableSize: 1009}, otherWeights, nil},
}

// In a fleet of Envoys and sidecars a key must lead to one host.
func TestKeysGoWhereEnvoySendsThem(t *testing.T) {
	binary, hosts := envoyBinary(t), sayingHosts(t, len(equalWeights))
	address := startEnvoy(t, binary, hosts, envoyCases)
	client := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	for _, c := range envoyCases {
		t.Run(c.name, func(t *testing.T) {
			cluster := c.cluster(hosts)
			p := lb.NewPicker(&c.ours, 1)
			seen := map[string]bool{}
			for i := range 300 {
				key := fmt.Sprint("key-", i)
				want := ask(t, client, "http://"+address+"/"+c.name, key)
				seen[want] = true
				if got := p.Pick(cluster.View(), &lb.Request{Hash: lb.Hash(key), HasHash: true}).Text(); got != want {
					t.Fatalf("%s went to %s, by Envoy to %s", key, got, want)
				}
			}
			if len(seen) < 5 {
				t.Errorf("only %d hosts were reached: the keys show nothing", len(seen))
			}
		})
	}
}

func ask(t *testing.T, client *http.Client, url, key string) string {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
	return resp.Header.Get("X-Host")
}

// sayingHosts are servers that answer with where they are, in X-Host.
func sayingHosts(t *testing.T, n int) []netip.AddrPort {
	t.Helper()
	hosts := make([]netip.AddrPort, n)
	for i := range hosts {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Host", r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		}))
		t.Cleanup(s.Close)
		hosts[i] = netip.MustParseAddrPort(s.Listener.Addr().String())
	}
	return hosts
}

// envoyBinary installs Envoy if it is not there yet, and skips the test unless real peers
// are asked for.
func envoyBinary(t *testing.T) string {
	t.Helper()
	if os.Getenv("OUTRIGGER_PEERS") == "" {
		t.Skip("runs real peers: set OUTRIGGER_PEERS=1")
	}
	const script = "../../test/peers/envoy"
	if out, err := exec.Command(script, "install").CombinedOutput(); err != nil {
		t.Fatalf("install envoy: %v: %s", err, out)
	}
	path, err := exec.Command(script, "path").Output()
	if err != nil {
		t.Fatalf("path of envoy: %v", err)
	}
	return strings.TrimSpace(string(path))
}

// startEnvoy runs Envoy with a route and cluster per case until the test's end.
func startEnvoy(t *testing.T, binary string, hosts []netip.AddrPort, cases []envoyCase) string {
	t.Helper()
	address := freeporttest.Address(t)
	runEnvoy(t, binary, address, envoyBootstrap(netip.MustParseAddrPort(address), hosts, cases))
	return address
}

// runEnvoy runs Envoy until the test's end and waits until it listens.
func runEnvoy(t *testing.T, binary, address string, bootstrap any) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.json")
	text, err := json.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(binary, "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warn")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	deadline := time.After(30 * time.Second)
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-retry.C:
		case <-ended:
			t.Fatalf("envoy ended:\n%s", &log)
		case <-deadline:
			t.Fatal("envoy does not listen")
		}
	}
}

func envoyBootstrap(listen netip.AddrPort, hosts []netip.AddrPort, cases []envoyCase) any {
	var routes, clusters list
	for _, c := range cases {
		var endpoints list
		for i, h := range hosts {
			endpoints = append(endpoints, object{
				"endpoint": object{"address": socketOf(h)}, "load_balancing_weight": c.weights[i],
			})
		}
		cluster := object{
			"name": c.name, "type": "STATIC", "connect_timeout": "1s", "lb_policy": c.policy,
			"load_assignment": object{"cluster_name": c.name, "endpoints": list{object{"lb_endpoints": endpoints}}},
		}
		if c.common != nil {
			cluster["common_lb_config"] = c.common
		}
		if c.config != nil {
			cluster[strings.ToLower(c.policy)+"_lb_config"] = c.config
		}
		clusters = append(clusters, cluster)
		routes = append(routes, object{"match": object{"path": "/" + c.name}, "route": object{
			"cluster": c.name, "hash_policy": list{object{"header": object{"header_name": "x-key"}}},
		}})
	}
	return proxyBootstrap(listen, routes, clusters)
}

func socketOf(a netip.AddrPort) object {
	return object{"socket_address": object{"address": a.Addr().String(), "port_value": a.Port()}}
}

// proxyBootstrap has one listener with the routes.
func proxyBootstrap(listen netip.AddrPort, routes, clusters list) any {
	const filters = "type.googleapis.com/envoy.extensions.filters."
	return object{"static_resources": object{
		"clusters": clusters,
		"listeners": list{object{
			"name": "in", "address": socketOf(listen),
			"filter_chains": list{object{"filters": list{object{
				"name": "http",
				"typed_config": object{
					"@type":       filters + "network.http_connection_manager.v3.HttpConnectionManager",
					"stat_prefix": "in",
					"route_config": object{"name": "r", "virtual_hosts": list{
						object{"name": "all", "domains": list{"*"}, "routes": routes},
					}},
					"http_filters": list{object{
						"name": "router", "typed_config": object{"@type": filters + "http.router.v3.Router"},
					}},
				},
			}}}},
		}},
	}}
}
