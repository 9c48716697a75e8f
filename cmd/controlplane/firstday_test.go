// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// put sends a body as JSON.
func (d *daemon) put(path, body string) {
	d.t.Helper()
	q, err := http.NewRequest(http.MethodPut, d.http+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		d.t.Fatal(err)
	}
	_ = resp.Body.Close() // not read
	if resp.StatusCode >= 300 {
		d.t.Fatalf("PUT %s: status %d", path, resp.StatusCode)
	}
}

const instance1 = `{"address": "127.0.0.1", "port": 9001, "version": "v1", "metadata": {"stage": "canary"}, "leaseSeconds": 3600}`

// Health that was reported outlives the control plane, however it ends.
func TestHealthIsKnownAfterTheControlPlaneWasKilled(t *testing.T) {
	data := t.TempDir()
	d := serveDaemon(t, data)
	for _, id := range []string{"a", "b", "c"} {
		d.put("/v1/services/orders/instances/"+id, instance1)
	}
	d.put("/v1/services/orders/instances/a/health", `{"health": "unhealthy"}`)
	d.put("/v1/services/orders/instances/b/heartbeat", `{"health": "draining"}`)
	d.kill()
	d = serveDaemon(t, data)
	r := d.want(d.run("", "get", "instances", "orders"), 0)
	for _, want := range []string{"a    127.0.0.1:9001   unhealthy", "b    127.0.0.1:9001   draining", "c    127.0.0.1:9001   unknown"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
}

const (
	apiRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orders}
spec:
  parentRefs: [{kind: Service, name: orders}]
  rules: [{backendRefs: [{name: orders}], timeouts: {request: 3s}}]
`
	typoRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: typo}
spec:
  parentRefs: [{kind: Service, name: orders}]
  rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: orders, labels: {version: v11}}]}]
`
)

// A file goes before what was applied, both are seen, and what was applied comes back.
func TestAFileCoversWhatWasAppliedAndGivesItBack(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	d := serveDaemon(t, data)
	d.put("/v1/services/orders/instances/a", instance1)
	d.want(d.run(apiRoute, "apply", "-f", "-"), 0)
	d.want(d.run("", "get", "httproute/orders"), 0, "orders   orders   true       api")
	d.want(d.run("", "get", "httproute/orders", "-o", "json"), 0, `"source": "api"`, `"request": "3s"`)
	d.kill()
	file := filepath.Join(dir, "routes.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(apiRoute, "3s", "4s", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	d = serveDaemon(t, data, "--config", dir)
	d.want(d.run("", "get", "httproute/orders", "-o", "json"), 0, `"source": "routes.yaml"`, `"request": "4s"`, "it covers the object of that name that was made by the API")
	d.want(d.run("", "get", "httproutes"), 0, "true (1 warning)   routes.yaml")
	d.want(d.run("", "status"), 0, "! HTTPRoute/orders: it covers the object of that name that was made by the API")
	d.want(d.run("", "status", "-o", "json"), 0, `"warned": 1`, `"source": "routes.yaml"`)
	d.want(d.run("", "events", "--kind", "httproutes"), 0, "HTTPRoute put orders: it covers the object that was made by the API")
	d.want(d.run(apiRoute, "apply", "-f", "-"), exitConflict, "comes from the file routes.yaml of the configuration folder, which goes before the API: change it there")
	d.want(d.run("", "delete", "httproute/orders"), exitConflict)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	d.eventually(`"request": "3s"`, "get", "httproute/orders", "-o", "json")
	d.want(d.run("", "events", "--service", "orders"), 0, "the file routes.yaml no longer has it: the object that was made by the API is in force again")
	d.want(d.run("", "delete", "httproute/orders"), 0, "HTTPRoute/orders deleted")
}

// What somebody tries on the first day.
func TestWhatPeopleTryFirst(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	d.want(d.run("", "get", "all"), 0, "no service has registered and no object was applied yet")
	d.put("/v1/services/orders/instances/a", instance1)
	d.want(d.run(apiRoute, "apply", "-f", "-"), 0)
	d.want(d.run(typoRoute, "apply", "-f", "-"), 0, `warning: HTTPRoute/typo: spec.rules[0].backendRefs[0].labels: no instance of service "orders" has version=v11 now: there are version=v1; did you mean version=v1?; its requests get 503`)
	d.want(d.run("", "get", "routes"), 0, "true (1 warning)")
	d.want(d.run("", "explain", "GET", "http://orders/x"), exitFailed, `503 UH: no instance of service "orders" has version=v11 now`)
	second := strings.Replace(apiRoute, "name: orders}\nspec", "name: second}\nspec", 1)
	d.want(d.run(second, "apply", "-f", "-"), 0, "warning: HTTPRoute/second: spec.rules[0]: HTTPRoute/orders spec.rules[0] has the same match and comes first")
	d.want(d.run("", "events", "--service", "orders"), 0, "Instance put orders/a", "HTTPRoute put orders", "HTTPRoute warning orders: spec.rules[0]: HTTPRoute/second spec.rules[0] has the same match and is younger")

	d.want(d.run("", "get", "all"), 0, "HTTPRoute/orders   orders   true (1 warning)   api", "Service/orders     -        true               registry")
	d.want(d.run("", "get", "instances", "-o", "wide"), 0, "stage=canary")
	yaml := d.want(d.run("", "get", "service", "orders", "-o", "yaml"), 0, "kind: Service", "source: registry", "there is no object of it")
	d.want(d.run("", "get", "services", "-o", "json"), 0, `"source": "registry"`)
	d.want(d.run(yaml.out, "apply", "-f", "-"), 0, "Service/orders created")
	d.want(d.run("", "get", "service/orders", "-o", "yaml"), 0, "source: api")
	d.want(d.run("", "get", "service", "ordres", "-o", "yaml"), exitNotFound, "Service/ordres: there is no such thing")
	d.want(d.run("", "status", "ordres"), exitNotFound, `did you mean "orders"?`)
	d.want(d.run("", "status", "orders"), exitNotFound, "service orders has no sidecar that is or was connected")
	d.want(d.run("", "delete", "httproute/second", "service/orders"), 0, "HTTPRoute/second deleted\nService/orders deleted\n")

	for args, want := range map[string]string{
		"get httproute/o": "httproute/orders\n", "get httproute o": "orders\n", "delete httproute/t": "httproute/typo\n", "get a": "all\n",
		"delete httproute/orders httproute/": "httproute/typo\n", "events --service o": "orders\n", "events --kind ejection,cir": "ejection,circuit\n",
	} {
		list := strings.Fields(args)
		// The server's flag stands before the word that is completed.
		words := append([]string{"__complete", list[0], "--server", d.http}, list[1:]...)
		if r := run(t, "", words...); !strings.HasPrefix(r.out, want) {
			t.Errorf("%s<Tab>: %q, want %q", args, r.out, want)
		}
	}
}

func TestATokenThatIsWantedIsSaidToBeWhere(t *testing.T) {
	d := serveDaemon(t, t.TempDir(), "--http", "0.0.0.0:0")
	d.http = strings.Replace(d.http, "[::]", "127.0.0.1", 1)
	d.want(d.run("", "status"), exitDenied, "wants a token: give --token-file or OUTRIGGER_TOKEN_FILE: its own is made at the first start of serve, in the file token of --data (./outrigger-data/token by default)")
	wrong := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(wrong, []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.want(d.run("", "status", "--token-file", wrong), exitDenied, "is not this control plane's: its own is made at the first start of serve")
	// Said once, however many objects it is about.
	for _, r := range []result{
		d.run("{apiVersion: outrigger.io/v1, kind: Service, metadata: {name: a}}\n---\n{apiVersion: outrigger.io/v1, kind: Service, metadata: {name: b}}", "apply", "-f", "-", "--token-file", wrong),
		d.run("", "delete", "service/a", "service/b", "--token-file", wrong),
	} {
		if d.want(r, exitDenied); strings.Count(r.err, "is not this control plane's") != 1 {
			t.Error(r.err)
		}
	}
}
