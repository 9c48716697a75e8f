// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

const asBinary = "CONTROLPLANE_TEST_AS_BINARY"

// TestMain lets the test binary be the command, so that tests run real processes.
func TestMain(m *testing.M) {
	if os.Getenv(asBinary) != "" {
		main()
	}
	for _, name := range []string{"OUTRIGGER_SERVER", "OUTRIGGER_TOKEN", "OUTRIGGER_TOKEN_FILE", "OUTRIGGER_LAKE", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// result is how a command line ended.
type result struct {
	code     int
	out, err string
}

func run(t *testing.T, in string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := execute(t.Context(), streams{strings.NewReader(in), &out, &errOut}, args)
	return result{code, out.String(), errOut.String()}
}

func TestHelpTextsStayAsTheyAre(t *testing.T) {
	var all strings.Builder
	for _, args := range [][]string{{}, {"serve"}, {"apply"}, {"get"}, {"delete"}, {"diff"}, {"status"}, {"explain"}, {"trace"}, {"lake"}, {"lake", "ls"}, {"lake", "cat"}, {"ca"}, {"ca", "status"}, {"ca", "bundle"}, {"ca", "rotate"}, {"ca", "token"}, {"validate"}, {"version"}} {
		r := run(t, "", append(args, "--help")...)
		if r.code != 0 || r.err != "" {
			t.Errorf("%v --help: exit %d, %s", args, r.code, r.err)
		}
		fmt.Fprintf(&all, "$ controlplane %s--help\n%s\n", strings.Join(append(args, ""), " "), r.out)
	}
	golden(t, "help.golden", all.String())
}

func TestCompletionIsOfferedForShells(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := run(t, "", "completion", shell); r.code != 0 || !strings.Contains(r.out, "controlplane") {
			t.Errorf("%s: exit %d", shell, r.code)
		}
	}
	r := run(t, "", "__complete", "get", "")
	if !strings.Contains(r.out, "httproutes") || !strings.Contains(r.out, "instances") {
		t.Errorf("kinds: %s", r.out)
	}
}

func TestWrongCommandLinesAreRefusedByName(t *testing.T) {
	dir := t.TempDir()
	cases := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"bogus"}, exitUsage, `unknown command "bogus"`},
		{[]string{"serve", "--legacy", "x"}, exitUsage, "unknown flag: --legacy"},
		{[]string{"serve", "--xds-mtls", "15012"}, exitUsage, "--xds-mtls: want HOST:PORT"},
		{[]string{"serve", "--ca-cert", "x"}, exitUsage, "--ca-key: required with --ca-cert"},
		{[]string{"serve", "--ca-key", "x"}, exitUsage, "--ca-cert: required with --ca-key"},
		{[]string{"serve", "--ca-root", "x"}, exitUsage, "--ca-cert: required with --ca-root"},
		{[]string{"serve", "--trust-domain", "A/b"}, exitUsage, "--trust-domain"},
		{[]string{"serve", "--cert-life", "1s"}, exitUsage, "--cert-life: want 2s to 720h0m0s, got 1s"},
		{[]string{"serve", "--ca-overlap", "-1s"}, exitUsage, "--ca-overlap"},
		{[]string{"serve", "--data", dir + "/ca-test", "--xds", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ca-cert", dir + "/none", "--ca-key", dir + "/none"}, exitCannotServe, "certificate authority: stat "},
		{[]string{"ca", "token"}, exitUsage, "--service"},
		{[]string{"ca", "rotate", "--overlap", "-1s"}, exitUsage, "--overlap: want more than 0"},
		{[]string{"serve", "--xds", "0.0.0.0:15010"}, exitUsage, "--insecure-xds"},
		{[]string{"serve", "--http", "127.0.0.1"}, exitUsage, "--http: want HOST:PORT"},
		{[]string{"serve", "--http", "127.0.0.1:99999"}, exitUsage, "--http: want a port"},
		{[]string{"serve", "--http", "example.com:80"}, exitUsage, "--http: want an IP address"},
		{[]string{"serve", "--http", "unix:"}, exitUsage, "--http: want unix:PATH"},
		{[]string{"serve", "--log-level", "loud"}, exitUsage, "--log-level"},
		{[]string{"serve", "--span-memory", "1"}, exitUsage, "--span-memory"},
		{[]string{"serve", "--config", dir + "/none"}, exitUsage, "--config"},
		{[]string{"serve", "--token-file", dir + "/none", "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0"}, exitUsage, "--token-file"},
		{[]string{"get"}, exitUsage, "want a kind: instances, events, services, httproutes"},
		{[]string{"get", "roots"}, exitUsage, "Tap; get also takes instances, events and all"},
		{[]string{"apply", "-f", dir + "/none"}, exitFailed, "error: -f " + dir + "/none: no such file or directory"},
		{[]string{"get", "taps", "a", "b"}, exitUsage, "at most one name, got 3"},
		{[]string{"stauts"}, exitUsage, "status"},
		{[]string{"version", "x"}, exitUsage, "takes no arguments"},
		{[]string{"version", "-o", "yaml"}, exitUsage, "-o: want json"},
		{[]string{"apply", "mesh.yaml", "b.yaml"}, exitUsage, "controlplane apply -f mesh.yaml -f b.yaml"},
		{[]string{"diff", "mesh.yaml"}, exitUsage, "controlplane diff -f mesh.yaml"},
		{[]string{"validate", "mesh.yaml"}, exitUsage, "controlplane validate -f mesh.yaml"},
		{[]string{"status", "a", "b"}, exitUsage, "one node id or service at most"},
		{[]string{"trace"}, exitUsage, "want one trace id"},
		{[]string{"trace", "abc"}, exitUsage, `"abc" is too short for a trace id: it has 3 of 16 or 32 hexadecimal digits`},
		{[]string{"get", "httproute/"}, exitUsage, "the name is empty"},
		{[]string{"get", "httproute/a", "b"}, exitUsage, "want KIND NAME or KIND/NAME"},
		{[]string{"get", "all", "b"}, exitUsage, "get all takes no name"},
		{[]string{"delete", "httproute/a", "b"}, exitUsage, `KIND/NAME for each, got "b"`},
		{[]string{"delete", "httproute"}, exitUsage, "want a kind and a name, KIND/NAME, or -f"},
		{[]string{"events", "--kind", "ejektion"}, exitUsage, `no events are of the kind "ejektion", want some of ejection, circuit,`},
		{[]string{"events", "--kind", "health,ejektion"}, exitUsage, "did you mean ejection?"},
		{[]string{"explain"}, exitUsage, "want METHOD URL, such as controlplane explain GET"},
		{[]string{"explain", "GET"}, exitUsage, "the URL is missing"},
		{[]string{"explain", "http://payments/"}, exitUsage, "the method is missing: controlplane explain GET http://payments/"},
		{[]string{"explain", "http://payments/", "post"}, exitUsage, "the method comes first: controlplane explain POST http://payments/"},
		{[]string{"explain", "GET", "http://payments/", "x: 1"}, exitUsage, "-H 'name: value'"},
		{[]string{"explain", "GET", "http://payments/", "--from", "a", "--node", "b"}, exitUsage, "exclude each other"},
		{[]string{"explain", "GET", "payments/v1"}, exitUsage, `want an http:// URL such as http://payments/v1/x, or tcp://db:5432, got "payments/v1"`},
		{[]string{"explain", "GET", "ftp://payments/"}, exitUsage, "want an http:// URL"},
		{[]string{"completion", "bsh"}, exitUsage, `no command "bsh"; did you mean "bash"?`},
		{[]string{"lake", "cat", "a", "b"}, exitUsage, "one file or folder"},
		{[]string{"get", "pods"}, exitUsage, `unknown kind "pods"`},
		{[]string{"get", "gateway"}, exitUsage, "not supported yet"},
		{[]string{"get", "taps", "-o", "xml"}, exitUsage, "-o: want yaml, json or wide"},
		{[]string{"get", "taps", "--server", "localhost"}, exitUsage, "--server: want a URL"},
		{[]string{"apply"}, exitUsage, "-f"},
		{[]string{"apply", "-f", dir + "/none"}, exitFailed, "none"},
		{[]string{"apply", "-f", dir}, exitFailed, "no .yaml"},
		{[]string{"delete", "tap"}, exitUsage, "a kind and a name"},
		{[]string{"serve", "--lake-interval", "1ms"}, exitUsage, "--lake-interval"},
		{[]string{"lake", "ls", "--lake", dir}, exitNotFound, "holds no lake"},
		{[]string{"lake", "cat", "x", "--lake", dir}, exitNotFound, "--lake"},
		{[]string{"lake", "query"}, exitUsage, `controlplane lake has no command "query"`},
		{[]string{"trace", "xyz"}, exitUsage, "hexadecimal"},
		{[]string{"status", "--server", "http://127.0.0.1:1"}, exitUnreachable, "cannot be reached"},
	}
	for _, c := range cases {
		r := run(t, "", c.args...)
		if r.code != c.code || !strings.Contains(r.err, c.want) {
			t.Errorf("%v: exit %d, want %d with %q\n%s", c.args, r.code, c.code, c.want, r.err)
		}
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	r := run(t, "apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: a}\nspec: {prots: [], ports: [{port: 0}]}\n", "validate", "-f", "-")
	want := "error: 2 faults in the input\n" +
		"-:4: Service/a: spec.prots: unknown field, did you mean ports?\n" +
		"-:4: Service/a: spec.ports[0].port: want a whole number from 1 to 65535, got 0\n"
	if r.code != exitFailed || r.err != want {
		t.Errorf("exit %d\n%s", r.code, r.err)
	}
}

// daemon is a running `controlplane serve`.
type daemon struct {
	t         *testing.T
	cmd       *exec.Cmd
	http, xds string
	mtls      string // empty without that port
	log       *bytes.Buffer
}

// serveDaemon starts one on free ports and waits for the lines that it prints when it is ready.
func serveDaemon(t *testing.T, data string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, log: &bytes.Buffer{}}
	d.cmd = exec.Command(os.Args[0], append([]string{"serve", "--data", data, "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0"}, args...)...)
	d.cmd.Env = append(os.Environ(), asBinary+"=1")
	d.cmd.Stderr = d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	scan := bufio.NewScanner(out)
	for (d.http == "" || d.xds == "") && scan.Scan() {
		switch what, addr, _ := strings.Cut(scan.Text(), " "); what {
		case "xds":
			d.xds = strings.Fields(addr)[0]
		case "mtls":
			d.mtls = strings.Fields(addr)[0]
		case "http":
			d.http = "http://" + strings.Fields(addr)[0]
		}
	}
	if d.http == "" {
		t.Fatalf("it did not start:\n%s", d.log)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the process
	return d
}

func (d *daemon) kill() {
	if d.cmd.ProcessState == nil {
		_ = d.cmd.Process.Kill() // it may have ended
		_ = d.cmd.Wait()         // killed
	}
}

func (d *daemon) run(in string, args ...string) result {
	d.t.Helper()
	return run(d.t, in, append(args, "--server", d.http)...)
}

func (d *daemon) want(r result, code int, contains ...string) result {
	d.t.Helper()
	if r.code != code {
		d.t.Errorf("exit: got %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	for _, c := range contains {
		if !strings.Contains(r.out+r.err, c) {
			d.t.Errorf("no %q in\n%s%s", c, r.out, r.err)
		}
	}
	return r
}

const mesh1 = `apiVersion: outrigger.io/v1
kind: TrafficPolicy
metadata: {name: payments}
spec:
  targetRef: {kind: Service, name: payments}
  timeouts: {request: 3s}
---
apiVersion: outrigger.io/v1
kind: Service
metadata: {name: payments}
spec: {ports: [{port: 80}], endpoints: [{address: 127.0.0.1, port: 9001}]}
`

func TestTheCommandLineWorksWithAServer(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	d.want(d.run(mesh1, "apply", "-f", "-", "--dry-run"), 0, "TrafficPolicy/payments changed (dry run)")
	d.want(d.run("", "get", "policy", "payments"), exitNotFound)
	d.want(d.run(mesh1, "diff", "-f", "-"), exitDiffers, "+++ Service/payments in -:8")
	// The service is applied before what refers to it: no warning.
	if r := d.want(d.run(mesh1, "apply", "-f", "-"), 0, "Service/payments created\nTrafficPolicy/payments created\n"); r.err != "" {
		t.Errorf("warnings: %s", r.err)
	}
	d.want(d.run(mesh1, "apply", "-f", "-"), 0, "Service/payments unchanged\nTrafficPolicy/payments unchanged\n")
	d.want(d.run(mesh1, "diff", "-f", "-"), 0)
	r := d.want(d.run(strings.Replace(mesh1, "3s", "4s", 1), "diff", "-f", "-"), exitDiffers)
	if !strings.Contains(r.out, "-    request: 3s\n+    request: 4s\n") {
		t.Errorf("diff:\n%s", r.out)
	}
	d.want(d.run("", "get", "policies"), 0, "payments   payments   true       api")
	d.want(d.run("", "get", "services"), 0, "payments   object   80      1           1         0")
	d.want(d.run("", "get", "instances", "payments"), 0, "static-127.0.0.1:9001")
	yaml := d.want(d.run("", "get", "trafficpolicy", "payments", "-o", "yaml"), 0, "    request: 3s")
	d.want(d.run(yaml.out, "apply", "-f", "-"), 0, "TrafficPolicy/payments unchanged")
	d.want(d.run("", "get", "taps", "-o", "json"), 0, `"items": []`)
	d.want(d.run("", "get", "events"), 0, "put    TrafficPolicy   payments")
	d.want(d.run("", "status"), 0, "1 service, 1 instance, 1 Service, 1 TrafficPolicy", "ready", "no sidecar has connected yet: sidecar --service NAME")
	d.want(d.run("", "status", "nobody"), exitNotFound)
	d.want(d.run("", "explain", "GET", "http://payments/x"), 0, "outbound|payments", "127.0.0.1:9001")
	d.want(d.run("", "explain", "GET", "http://nobody/x"), exitNotFound, "404 NR")
	d.want(d.run("", "explain", "GET", "http://payments/", "--from", "nobody"), 0, "no service, instance or sidecar of that name is known")
	d.want(d.run("", "trace", "463ac35c9f6413ad48485a3953bb6124"), exitNotFound, "is not, or no longer, kept")
	bad := strings.Replace(mesh1, "request: 3s", "request: 3s, connect: 1h", 1)
	d.want(d.run(bad, "apply", "-f", "-"), exitFailed, "-:6: TrafficPolicy/payments: spec.timeouts.connect: want 1ms to 5m, got 1h")
	d.want(d.run("", "delete", "policy", "payments", "nobody"), exitNotFound, "TrafficPolicy/payments deleted", "TrafficPolicy/nobody: there is no such thing")
	d.want(d.run(mesh1, "delete", "-f", "-"), exitNotFound, "Service/payments deleted")
}

func TestATraceIsShownAsATree(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	spans := `[
	 {"traceId":"463ac35c9f6413ad","id":"a","kind":"SERVER","name":"get /","timestamp":1000000,"duration":9000,"localEndpoint":{"serviceName":"web"},"tags":{"http.status_code":"200"}},
	 {"traceId":"463ac35c9f6413ad","id":"b","parentId":"a","kind":"CLIENT","name":"get /o","timestamp":1001000,"duration":5000,"localEndpoint":{"serviceName":"web"}},
	 {"traceId":"463ac35c9f6413ad","id":"b","parentId":"a","kind":"SERVER","shared":true,"name":"get /o","timestamp":1002000,"duration":3000,"localEndpoint":{"serviceName":"orders"}}]`
	resp, err := http.Post(d.http+"/zipkin/api/v2/spans", "application/json", strings.NewReader(spans))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // empty
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("status: got %d", resp.StatusCode)
	}
	r := d.want(d.run("", "trace", "463ac35c9f6413ad"), 0)
	want := `SPAN         SERVICE   KIND     START   DURATION   RESULT
get /        web       server   +0s     9ms        200
  get /o     web       client   +1ms    5ms        -
    get /o   orders    server   +2ms    3ms        -
`
	if diff := cmp.Diff(want, r.out); diff != "" {
		t.Error(diff)
	}
}

// eventually asks until the answer has what is wanted.
func (d *daemon) eventually(want string, args ...string) {
	d.t.Helper()
	var r result
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if r = d.run("", args...); strings.Contains(r.out+r.err, want) {
			return
		}
	}
	d.t.Fatalf("%v never had %q:\n%s%s", args, want, r.out, r.err)
}

func TestABadFileNeverUnseatsGoodObjectsAndIsShown(t *testing.T) {
	conf, data := t.TempDir(), t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf+"/mesh.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(mesh1)
	d := serveDaemon(t, data, "--config", conf)
	d.want(d.run("", "get", "policies", "-o", "wide"), 0, "mesh.yaml")
	d.want(d.run("", "delete", "policy", "payments"), exitConflict, "comes from the file mesh.yaml")
	d.want(d.run(strings.Replace(mesh1, "3s", "4s", 1), "apply", "-f", "-"), exitConflict, "comes from the file mesh.yaml")

	write(strings.Replace(mesh1, "3s", "3 seconds", 1))
	d.eventually("mesh.yaml:6: TrafficPolicy/payments: spec.timeouts.request: want a duration", "status")
	d.want(d.run("", "get", "policy", "payments", "-o", "yaml"), 0, "request: 3s")
	d.want(d.run("", "get", "events"), 0, "rejected", "mesh.yaml")

	write(strings.Replace(mesh1, "3s", "5s", 1))
	d.eventually("request: 5s", "get", "policy", "payments", "-o", "yaml")
	if r := d.run("", "status"); strings.Contains(r.out, "has errors") {
		t.Errorf("still shown as bad:\n%s", r.out)
	}
}

func TestSIGTERMEndsCleanlyAndARestartKnowsEverything(t *testing.T) {
	data := t.TempDir()
	d := serveDaemon(t, data)
	d.want(d.run(mesh1, "apply", "-f", "-"), 0)
	// An open stream does not hold it up.
	resp, err := http.Get(d.http + "/v1/objects?watch=true")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // ended by the server
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("exit: %v\n%s", err, d.log)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	d = serveDaemon(t, data)
	d.want(d.run("", "get", "policies"), 0, "payments")
}

func TestABusyPortAndAStoreInUseNameTheFlag(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // only held
	busy := l.Addr().String()
	r := run(t, "", "serve", "--data", t.TempDir(), "--http", busy, "--xds", "127.0.0.1:0")
	if r.code != exitCannotServe || !strings.Contains(r.err, "--http "+busy+": the address is taken") {
		t.Errorf("http: exit %d, %s", r.code, r.err)
	}
	r = run(t, "", "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--xds", busy)
	if r.code != exitCannotServe || !strings.Contains(r.err, "--xds "+busy+": the address is taken") {
		t.Errorf("xds: exit %d, %s", r.code, r.err)
	}
	data := t.TempDir()
	serveDaemon(t, data)
	r = run(t, "", "serve", "--data", data, "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0")
	if r.code != exitCannotServe || !strings.Contains(r.err, "in use by another process") {
		t.Errorf("store: exit %d, %s", r.code, r.err)
	}
	corrupt := t.TempDir()
	if err := os.WriteFile(corrupt+"/state.db", []byte("not a store"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = run(t, "", "serve", "--data", corrupt, "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0")
	if r.code != exitCannotServe || !strings.Contains(r.err, "damaged") {
		t.Errorf("corrupt: exit %d, %s", r.code, r.err)
	}
}

func TestOffLoopbackTheTokenOfTheDataFolderIsWanted(t *testing.T) {
	data := t.TempDir()
	d := serveDaemon(t, data, "--http", "0.0.0.0:0", "--xds", "0.0.0.0:0", "--insecure-xds")
	_, port, _ := strings.Cut(strings.TrimPrefix(d.http, "http://"), "]:")
	d.http = "http://127.0.0.1:" + port
	d.want(d.run("", "get", "taps"), exitDenied, "wants a token: give --token-file or OUTRIGGER_TOKEN_FILE")
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("not-the-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.want(d.run("", "get", "taps", "--token-file", other), exitDenied, "the token in "+other+" is not this control plane's")
	info, err := os.Stat(data + "/token")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("token file: %v %v", info, err)
	}
	d.want(d.run("", "get", "taps", "--token-file", data+"/token"), 0)
	token, err := os.ReadFile(data + "/token")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OUTRIGGER_TOKEN", string(token))
	d.want(d.run("", "get", "taps"), 0)
	if err := os.Chmod(data+"/token", 0o644); err != nil {
		t.Fatal(err)
	}
	r := run(t, "", "serve", "--data", data, "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0")
	if r.code != exitCannotServe || !strings.Contains(r.err, "chmod 600") {
		t.Errorf("a token that others read: exit %d, %s", r.code, r.err)
	}
}

func TestUnixSocketsWorkAndStaleOnesAreTakenOver(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/x.sock"
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- execute(ctx, streams{strings.NewReader(""), w, io.Discard}, []string{"serve", "--data", dir + "/data", "--http", "unix:" + path, "--xds", "127.0.0.1:0"})
	}()
	scan := bufio.NewScanner(out)
	for scan.Scan() && !strings.HasPrefix(scan.Text(), "http") {
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://localhost/healthz/live")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // the status is enough
	if resp.StatusCode != 200 {
		t.Errorf("status: got %d", resp.StatusCode)
	}
	client.CloseIdleConnections()
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("exit: got %d", code)
	}
}

func TestNothingOfOthersSteersTheTerminal(t *testing.T) {
	var b bytes.Buffer
	if err := table(&b, []string{"A"}, [][]string{{"x\x1b[31my\nz"}}); err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`\x1b`).Match(b.Bytes()) || strings.Count(b.String(), "\n") != 2 {
		t.Errorf("got %q", b.String())
	}
}
