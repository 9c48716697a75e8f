// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// api is a real server over a real store.
type api struct {
	t      *testing.T
	server *Server
	state  *store.State
	url    string
}

func newAPI(t *testing.T, change func(*Config)) *api {
	t.Helper()
	return newAPIServer(t, change, func(*http.Server) {})
}

func newAPIServer(t *testing.T, change func(*Config), tune func(*http.Server)) *api {
	t.Helper()
	state, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{State: state, Loopback: true, Version: "test"}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = s.HTTPServer(s.Handler())
	tune(srv.Config)
	srv.Start()
	t.Cleanup(func() {
		s.Stop()
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	})
	return &api{t, s, state, srv.URL}
}

type answer struct {
	status int
	header http.Header
	body   string
}

// do makes a request; headers are "name: value".
func (a *api) do(method, path, body string, headers ...string) answer {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		a.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

func (a *api) want(got answer, status int, contains ...string) {
	a.t.Helper()
	if got.status != status {
		a.t.Errorf("status: got %d, want %d\n%s", got.status, status, got.body)
	}
	for _, c := range contains {
		if !strings.Contains(got.body, c) {
			a.t.Errorf("body has no %q:\n%s", c, got.body)
		}
	}
	if got.status >= 400 {
		var p problem
		if err := json.Unmarshal([]byte(got.body), &p); err != nil || p.Status != got.status || p.Title == "" || got.header.Get("Content-Type") != "application/problem+json" {
			a.t.Errorf("not a problem document: %v %s %s", err, got.header.Get("Content-Type"), got.body)
		}
	}
}

func svc(name string, port int) string {
	return fmt.Sprintf(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"%s"},"spec":{"ports":[{"port":%d}]}}`, name, port)
}

func TestAnObjectIsWrittenUnderItsRevision(t *testing.T) {
	a := newAPI(t, nil)
	created := a.do("PUT", "/v1/objects/Service/a", svc("a", 80))
	a.want(created, 201, `"accepted":true`)
	etag := created.header.Get("ETag")
	if etag != `"1"` || created.header.Get("Location") != "/v1/objects/Service/a" {
		t.Errorf("headers: %v", created.header)
	}
	a.want(a.do("PUT", "/v1/objects/service/a", svc("a", 80)), 200)
	a.want(a.do("GET", "/v1/objects/Service/a", "", "If-None-Match: "+etag), 304)
	changed := a.do("PUT", "/v1/objects/Service/a", svc("a", 81), "If-Match: "+etag)
	a.want(changed, 200, `"revision":2`)
	a.want(a.do("PUT", "/v1/objects/Service/a", svc("a", 82), "If-Match: "+etag), 412, `"currentRevision":2`)
	a.want(a.do("PUT", "/v1/objects/Service/a", svc("a", 82), "If-None-Match: *"), 412)
	a.want(a.do("PUT", "/v1/objects/Service/a", svc("a", 82), "If-Match: x"), 400, "If-Match")
	a.want(a.do("PUT", "/v1/objects/Service/b", svc("b", 82), "If-Match: *"), 412)
	a.want(a.do("PUT", "/v1/objects/Service/a", `{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"a","revision":1}}`), 412)
	a.want(a.do("DELETE", "/v1/objects/Service/a", "", `If-Match: "1"`), 412)
	a.want(a.do("DELETE", "/v1/objects/Service/a", "", `If-Match: "2"`), 200, `"revision":3`)
	a.want(a.do("GET", "/v1/objects/Service/a", ""), 404)
	a.want(a.do("DELETE", "/v1/objects/Service/a", ""), 404)
}

func TestWhatIsAnsweredCanBeSentBack(t *testing.T) {
	a := newAPI(t, nil)
	a.want(a.do("PUT", "/v1/objects/Service/a", svc("a", 80)), 201)
	got := a.do("GET", "/v1/objects/Service/a", "")
	back := a.do("PUT", "/v1/objects/Service/a", got.body)
	a.want(back, 200)
	if back.header.Get("Outrigger-Changed") != "false" {
		t.Error("it counts as a change")
	}
}

func TestATapThatHasEndedSaysSo(t *testing.T) {
	clock := time.Now()
	a := newAPI(t, func(c *Config) { c.Now = func() time.Time { return clock } })
	a.want(a.do("PUT", "/v1/objects/Tap/t", `{"apiVersion":"outrigger.io/v1","kind":"Tap","metadata":{"name":"t"},"spec":{"targetRef":{"kind":"Service","name":"a"},"expires":"1h"}}`), 201)
	if r := a.do("GET", "/v1/objects/Tap/t", ""); strings.Contains(r.body, "Expired") {
		t.Errorf("too early:\n%s", r.body)
	}
	clock = clock.Add(2 * time.Hour)
	a.want(a.do("GET", "/v1/objects/Tap/t", ""), 200, `"type":"Expired"`)
}

func TestADryRunChecksAndStoresNothing(t *testing.T) {
	a := newAPI(t, nil)
	a.want(a.do("PUT", "/v1/objects/Service/a?dryRun=true", svc("a", 80)), 200, `"accepted":true`)
	a.want(a.do("GET", "/v1/objects/Service/a", ""), 404)
	a.want(a.do("PUT", "/v1/objects/Service/a?dryRun=maybe", svc("a", 80)), 400, "dryRun")
}

func TestBadRequestsGetProblemsThatNameTheField(t *testing.T) {
	a := newAPI(t, nil)
	cases := []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		contains                 []string
	}{
		{"unknown path", "GET", "/v2/objects", "", nil, 404, nil},
		{"wrong method", "POST", "/v1/objects/Service/a", "{}", nil, 405, nil},
		{"unknown kind", "PUT", "/v1/objects/Pod/a", "{}", nil, 404, []string{"unknown kind"}},
		{"later kind", "GET", "/v1/objects/Gateway/a", "", nil, 404, []string{"not supported yet"}},
		{"empty body", "PUT", "/v1/objects/Service/a", "", nil, 400, nil},
		{"broken", "PUT", "/v1/objects/Service/a", "{", nil, 400, []string{`"line":1`}},
		{"form", "PUT", "/v1/objects/Service/a", svc("a", 1), []string{"Content-Type: application/x-www-form-urlencoded"}, 415, nil},
		{"no type", "PUT", "/v1/objects/Service/a", svc("a", 1), []string{"Content-Type: "}, 415, nil},
		{"wrong port", "PUT", "/v1/objects/Service/a", svc("a", 70000), nil, 422, []string{`"field":"spec.ports[0].port"`, `"object":"Service/a"`}},
		{"unknown field", "PUT", "/v1/objects/Service/a", strings.Replace(svc("a", 1), "ports", "prots", 1), nil, 422, []string{"did you mean ports?"}},
		{"another name", "PUT", "/v1/objects/Service/b", svc("a", 1), nil, 422, []string{`"field":"metadata.name"`}},
		{"too large", "PUT", "/v1/objects/Service/a", strings.Repeat(" ", maxBodyBytes+1), nil, 413, nil},
		{"limit", "GET", "/v1/objects?limit=0", "", nil, 400, []string{"limit"}},
		{"token of a page", "GET", "/v1/objects?continue=!", "", nil, 400, []string{"continue"}},
		{"filter", "GET", "/v1/objects?kind=Pod", "", nil, 400, []string{"kind"}},
		{"instance", "PUT", "/v1/services/a/instances/1", `{"address":"localhost","port":1}`, nil, 422, []string{`"field":"address"`}},
		{"instance field", "PUT", "/v1/services/a/instances/1", `{"address":"10.0.0.1","prot":1}`, nil, 422, []string{`"field":"prot"`, `"field":"port"`}},
		{"instance of a bad service", "PUT", "/v1/services/A_/instances/1", `{"address":"10.0.0.1","port":1}`, nil, 422, []string{`"field":"service"`}},
		{"lease", "PUT", "/v1/services/a/instances/1", `{"address":"10.0.0.1","port":1,"leaseSeconds":9999}`, nil, 422, []string{`"field":"leaseSeconds"`}},
		{"health", "PUT", "/v1/services/a/instances/1/health", `{"health":"fine"}`, nil, 422, []string{`"field":"health"`}},
		{"heartbeat of nobody", "PUT", "/v1/services/a/instances/1/heartbeat", "", nil, 404, nil},
		{"service", "GET", "/v1/services/nobody", "", nil, 404, nil},
		{"event id", "GET", "/v1/events?after=x", "", nil, 400, []string{"after"}},
		{"no xDS", "GET", "/v1/sidecars", "", nil, 503, nil},
		{"schema", "GET", "/v1/schemas/Pod", "", nil, 404, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := &api{t, a.server, a.state, a.url}
			b.want(b.do(c.method, c.path, c.body, c.headers...), c.status, c.contains...)
		})
	}
	if rev := a.state.Model().Revision; rev != 0 {
		t.Errorf("something was changed: model revision %d", rev)
	}
}

func TestInstancesAreRegisteredRenewedAndTakenOut(t *testing.T) {
	a := newAPI(t, nil)
	const path = "/v1/services/orders/instances/o-1"
	body := `{"address":"10.0.0.1","port":8080,"zone":"a","version":"v1","metadata":{"k":"v"},"leaseSeconds":10}`
	r := a.do("PUT", path, body)
	a.want(r, 201, `"service":"orders"`, `"id":"o-1"`, `"health":"unknown"`)
	a.want(a.do("PUT", path, body, "If-Match: "+r.header.Get("ETag")), 200)
	a.want(a.do("PUT", path+"/heartbeat", ""), 200, `"leaseSeconds":10`)
	a.want(a.do("PUT", path+"/heartbeat", `{"health":"healthy"}`), 200)
	a.want(a.do("GET", path, ""), 200, `"health":"healthy"`)
	a.want(a.do("PUT", path+"/health", `{"health":"draining"}`), 200)
	a.want(a.do("GET", "/v1/services/orders", ""), 200, `"instances":1`, `"healthy":0`, `"health":"draining"`)
	a.want(a.do("GET", "/v1/services", ""), 200, `"name":"orders"`, `"declared":false`)
	a.want(a.do("DELETE", path, "", `If-Match: "1"`), 412)
	a.want(a.do("DELETE", path, ""), 200, `"deleted":"orders/o-1"`)
	a.want(a.do("DELETE", path, ""), 404)
	a.want(a.do("DELETE", "/v1/services/orders/held", ""), 200, `"released":0`)
	a.want(a.do("PUT", path, `{"address":"10.0.0.1","port":1,"mutualTLS":true}`), 201)
	a.want(a.do("PUT", path, body), 409, "with an identity")

	a.want(a.do("PUT", "/v1/objects/Service/legacy", `{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"legacy"},"spec":{"endpoints":[{"address":"10.0.0.9","port":80}]}}`), 201)
	a.want(a.do("DELETE", "/v1/services/legacy/instances/static-10.0.0.9:80", ""), 409, "Service/legacy")
}

func TestListsAreCutIntoPagesThatJoin(t *testing.T) {
	a := newAPI(t, nil)
	for i := range 7 {
		a.want(a.do("PUT", fmt.Sprintf("/v1/objects/Service/s%d", i), svc(fmt.Sprintf("s%d", i), 80)), 201)
	}
	var names []string
	next, pages := "", 0
	for {
		var p struct {
			Items []struct {
				Metadata mesh.Metadata
			}
			Continue string
		}
		r := a.do("GET", "/v1/objects?kind=service&limit=3&continue="+next, "")
		a.want(r, 200)
		if err := json.Unmarshal([]byte(r.body), &p); err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Items {
			names = append(names, i.Metadata.Name)
		}
		if next, pages = p.Continue, pages+1; next == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "s0 s1 s2 s3 s4 s5 s6" || pages != 3 {
		t.Errorf("got %s on %d pages", got, pages)
	}
}

// events reads a server-sent event stream.
type events struct {
	t    *testing.T
	scan *bufio.Scanner
	body io.Closer
}

func (a *api) watch(path string, headers ...string) *events {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 20*time.Second)
	a.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		a.t.Fatalf("content type: got %s", ct)
	}
	e := &events{a.t, bufio.NewScanner(resp.Body), resp.Body}
	a.t.Cleanup(func() { _ = resp.Body.Close() }) // closed by the test already, or left to this
	return e
}

// next gives the next event as "type Kind/name" and its id.
func (e *events) next() (what, id string) {
	e.t.Helper()
	var event, data string
	for e.scan.Scan() {
		line := e.scan.Text()
		switch field, value, _ := strings.Cut(line, ": "); field {
		case "id":
			id = value
		case "event":
			event = value
		case "data":
			data = value
		case "":
			if line == "" && event != "" {
				var x struct{ Kind, Name string }
				if err := json.Unmarshal([]byte(data), &x); err != nil {
					e.t.Fatal(err)
				}
				return strings.TrimSuffix(event+" "+x.Kind+"/"+x.Name, " /"), id
			}
		}
	}
	e.t.Fatalf("the stream ended: %v", e.scan.Err())
	return "", ""
}

func (e *events) want(list ...string) (id string) {
	e.t.Helper()
	for _, w := range list {
		var got string
		if got, id = e.next(); got != w {
			e.t.Errorf("event: got %s, want %s", got, w)
		}
	}
	return id
}

func TestAWatchBeginsWithWhatThereIsAndFollowsChanges(t *testing.T) {
	a := newAPI(t, nil)
	a.want(a.do("PUT", "/v1/objects/Service/a", svc("a", 80)), 201)
	w := a.watch("/v1/objects?watch=true")
	w.want("put Service/a", "synced")
	a.want(a.do("PUT", "/v1/objects/Service/b", svc("b", 80)), 201)
	id := w.want("put Service/b")
	a.want(a.do("DELETE", "/v1/objects/Service/a", ""), 200)
	w.want("delete Service/a")
	if err := w.body.Close(); err != nil {
		t.Error(err)
	}

	// Instances are no objects.
	a.want(a.do("PUT", "/v1/services/x/instances/1", `{"address":"10.0.0.1","port":1}`), 201)
	a.want(a.do("PUT", "/v1/objects/Service/c", svc("c", 80)), 201)
	a.watch("/v1/objects?watch=true", "Last-Event-ID: "+id).want("delete Service/a", "put Service/c")
	a.watch("/v1/events?watch=true&after=1").want("put Service/b", "delete Service/a", "put Instance/x/1", "put Service/c")
	a.watch("/v1/objects?watch=true&kind=tap").want("synced")
}

func TestAWatchOutlivesTheTimeToReadARequest(t *testing.T) {
	const limit = 50 * time.Millisecond
	a := newAPIServer(t, nil, func(s *http.Server) { s.ReadTimeout = limit })
	w := a.watch("/v1/objects?watch=true")
	w.want("synced")
	<-time.After(4 * limit)
	a.want(a.do("PUT", "/v1/objects/Service/a", svc("a", 80)), 201)
	w.want("put Service/a")
}

func TestAWatcherThatMissedChangesIsTold(t *testing.T) {
	a := newAPI(t, nil)
	for i := range 2100 {
		if _, err := a.state.PutObject(t.Context(), parse(t, svc("a", i+1)), matchAny); err != nil {
			t.Fatal(err)
		}
	}
	a.watch("/v1/objects?watch=true", "Last-Event-ID: 1").want("reset")
}

func TestAStopEndsStreams(t *testing.T) {
	state, err := store.Open(store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{State: state, Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	a := &api{t, s, state, srv.URL}
	w := a.watch("/v1/objects?watch=true")
	w.want("synced")
	s.Stop()
	if w.scan.Scan() {
		t.Errorf("more came: %s", w.scan.Text())
	}
	srv.Close() // waits for the handlers
	http.DefaultClient.CloseIdleConnections()
	if err := state.Close(); err != nil {
		t.Error(err)
	}
}

func TestRequestsOfWebPagesAreRefused(t *testing.T) {
	a := newAPI(t, nil)
	for _, host := range []string{"evil.example", "10.0.0.1:15014", "127.0.0.1.evil.example", ""} {
		if host != "" {
			a.want(a.do("GET", "/v1/status", "", "Host: "+host), 403, "Host")
		}
	}
	for _, host := range []string{"localhost:15014", "127.0.0.1", "[::1]:80", "mesh.localhost"} {
		a.want(a.do("GET", "/v1/status", "", "Host: "+host), 200)
	}
	a.want(a.do("PUT", "/v1/objects/Service/a", svc("a", 1), "Origin: http://evil.example"), 403, "web pages")
	a.want(a.do("GET", "/v1/status", "", "Origin: null"), 403)
}

func TestOffLoopbackATokenIsWantedEverywhereButForHealth(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	mounted := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("mounted")) })
	a := newAPI(t, func(c *Config) {
		c.Token, c.Loopback = token, false
		c.Mounts = map[string]http.Handler{"/zipkin/": mounted}
	})
	for _, path := range []string{"/v1/status", "/metrics", "/openapi.json", "/zipkin/x", "/nowhere"} {
		r := a.do("GET", path, "")
		a.want(r, 401)
		if !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: no WWW-Authenticate", path)
		}
		a.want(a.do("GET", path, "", "Authorization: Bearer "+token[1:]), 401)
		a.want(a.do("GET", path, "", "Authorization: Basic "+token), 401)
	}
	a.want(a.do("GET", "/healthz/live", ""), 200)
	a.want(a.do("GET", "/healthz/ready", ""), 200)
	a.want(a.do("GET", "/v1/status", "", "Authorization: bearer "+token, "Host: mesh.example.com"), 200)
	a.want(a.do("GET", "/zipkin/x", "", "Authorization: Bearer "+token), 200, "mounted")
}

func TestReadinessSaysWhy(t *testing.T) {
	a := newAPI(t, func(c *Config) { c.Ready = func() error { return errors.New("nothing built yet") } })
	a.want(a.do("GET", "/healthz/ready", ""), 503, "nothing built yet")
	a.want(a.do("GET", "/healthz/live", ""), 200)
	a.want(a.do("GET", "/v1/status", ""), 200, `"ready":false`)
}

func TestTooManyWatchersAreRefusedAndRequestsGoOn(t *testing.T) {
	a := newAPI(t, nil)
	for range cap(a.server.watchers) {
		a.server.watchers <- struct{}{}
	}
	a.want(a.do("GET", "/v1/events?watch=true", ""), 503)
	a.want(a.do("GET", "/v1/events", ""), 200)
}

func TestMetricsAreWellFormedAndCount(t *testing.T) {
	a := newAPI(t, nil)
	a.want(a.do("PUT", "/v1/objects/Service/a", svc("a", 80)), 201)
	a.want(a.do("BREW", "/v1/status", ""), 405)
	r := a.do("GET", "/metrics", "")
	a.want(r, 200, `outrigger_controlplane_objects{kind="Service"} 1`, `outrigger_controlplane_http_requests_total{method="PUT",class="2xx"} 1`, `{method="other",class="4xx"} 1`)
	types := map[string]bool{}
	for line := range strings.Lines(r.body) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ := strings.Cut(rest, " ")
			if types[name] {
				t.Errorf("%s has two families", name)
			}
			types[name] = true
		} else if !strings.HasPrefix(line, "#") {
			name := line[:strings.IndexAny(line, "{ ")]
			if !types[name] {
				t.Errorf("%s has no TYPE before it", line)
			}
		}
	}
}

func TestExplainReadsTheRequest(t *testing.T) {
	a := newAPI(t, func(c *Config) { c.Explainer = echo{} })
	a.want(a.do("GET", "/v1/explain?service=web&method=POST&url=http://payments/v1%3Fa=b&header=X-User:%207&header=x-user:8", ""), 200,
		`"outcome":"web  POST http://payments/v1?a=b map[X-User:[7 8]]"`)
	a.want(a.do("GET", "/v1/explain?service=a&node=b&url=ftp://x&header=bad", ""), 422, `"field":"service"`, `"field":"url"`, `"field":"header"`)
}

type echo struct{}

func (echo) Explain(_ context.Context, q ExplainQuery) (Explanation, error) {
	return Explanation{Outcome: fmt.Sprint(q.Service, " ", q.Node, " ", q.Method, " ", q.URL, " ", q.Headers)}, nil
}

func parse(t *testing.T, text string) mesh.Object {
	t.Helper()
	o, err := mesh.ParseOne([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}
