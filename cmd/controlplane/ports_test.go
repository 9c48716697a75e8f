// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
)

func TestAWrongPortIsNamedWithTheRightOne(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer page.Close()
	for _, tt := range []struct{ name, server, want string }{
		{"the xDS port", "http://" + d.xds, "is a gRPC port, such as that of serve --xds (15010)"},
		{"https", strings.Replace(d.http, "http:", "https:", 1), "write http:// in --server"},
		{"another program", stranger.URL, "the answer is not the control plane's (status 404)"},
		{"a web page", page.URL, "the answer is not the control plane's"},
	} {
		for _, args := range [][]string{{"status"}, {"get", "services"}, {"explain", "GET", "http://payments/"}} {
			if r := run(t, "", append(args, "--server", tt.server)...); r.code != exitUnreachable || !strings.Contains(r.err, tt.want) {
				t.Errorf("%s: %v: exit %d, want %q\n%s", tt.name, args, r.code, tt.want, r.err)
			}
		}
	}
}

func TestExplainTakesWhoeverMaySendTheRequest(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	service := sidecarv1.NewSidecarServiceClient(d.dial())
	d.register(ctx, service, "payments", "p-1")
	d.register(ctx, service, "orders", "same")
	d.register(ctx, service, "billing", "same")
	d.want(d.run(mesh1, "apply", "-f", "-", "--dry-run"), 0)
	d.want(d.run("apiVersion: outrigger.io/v1\nkind: Service\nmetadata: {name: lonely}\nspec: {ports: [{port: 80}]}\n", "apply", "-f", "-"), 0)
	for _, tt := range []struct {
		from string
		code int
		want string
	}{
		{"payments", 0, "no sidecar of the service is known"},
		{"payments/p-1", 0, "payments/p-1"},
		{"p-1", 0, "payments/p-1"},
		{"lonely", 0, "which has no instance"},
		{"stranger", 0, "no service, instance or sidecar of that name is known"},
		{"payments/p-2", exitNotFound, "want a service, SERVICE/INSTANCE"},
		{"same", exitNotFound, "an instance id that one service alone has"},
	} {
		r := d.want(d.run("", "explain", "GET", "http://payments/", "--from", tt.from), tt.code, tt.want)
		if tt.code == 0 && !strings.Contains(r.out, "payments, the only instance") {
			t.Errorf("--from %s:\n%s", tt.from, r.out)
		}
	}
}

func TestStatusNamesUnhealthyInstances(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	for id, health := range map[string]string{"a": "healthy", "b": "unhealthy"} {
		req, err := http.NewRequest(http.MethodPut, d.http+"/v1/services/payments/instances/"+id,
			strings.NewReader(`{"address": "127.0.0.1", "port": 9001, "health": "`+health+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // the status is enough
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("register %s: %s", id, resp.Status)
		}
	}
	d.want(d.run("", "status"), 0, "1 service, 2 instances (1 unhealthy)", "! payments/b 127.0.0.1:9001 is unhealthy")
	r := d.want(d.run("", "status", "-o", "json"), 0, `"unhealthy": 1`, `"address": "127.0.0.1:9001"`)
	if strings.Contains(r.out, `"id": "a"`) {
		t.Errorf("a healthy instance is listed:\n%s", r.out)
	}
}

func TestCompletionAsksTheServerAndIsSilentWithoutOne(t *testing.T) {
	d := serveDaemon(t, t.TempDir())
	d.want(d.run(mesh1, "apply", "-f", "-"), 0)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"get", "service", ""}, []string{"payments"}},
		{[]string{"get", "trafficpolicies", "pay"}, []string{"payments"}},
		{[]string{"get", "trafficpolicies", "x"}, nil},
		{[]string{"get", "instances", ""}, []string{"payments"}},
		{[]string{"get", "tel"}, []string{"telemetries"}},
		{[]string{"delete", "service", ""}, []string{"payments"}},
		{[]string{"delete", "service", "payments", ""}, nil},
		{[]string{"explain", "P"}, []string{"POST", "PUT", "PATCH"}},
		{[]string{"explain", "GET", ""}, []string{"http://payments/"}},
		{[]string{"explain", "GET", "http://payments/", "--from", ""}, []string{"payments"}},
		{[]string{"get", "services", "-o", ""}, []string{"yaml", "json", "wide"}},
		{[]string{"status", "-o", ""}, []string{"json"}},
		{[]string{"serve", "--log-format", ""}, []string{"text", "json"}},
		{[]string{"status", ""}, nil},
		{[]string{"trace", ""}, nil},
	} {
		for _, server := range []string{d.http, "http://127.0.0.1:1"} {
			t.Setenv("OUTRIGGER_SERVER", server)
			r := run(t, "", append([]string{"__completeNoDesc"}, tt.args...)...)
			got := strings.Split(strings.TrimSpace(r.out), "\n")
			offered := strings.Join(got[:len(got)-1], " ")
			if r.code != 0 || strings.Contains(r.err, "error:") {
				t.Errorf("%v: exit %d, %s", tt.args, r.code, r.err)
			}
			if server == d.http && offered != strings.Join(tt.want, " ") {
				t.Errorf("%v: got %q, want %q", tt.args, offered, tt.want)
			}
		}
	}
}

func TestAnEmptyLakeIsToldFromNone(t *testing.T) {
	data := t.TempDir()
	d := serveDaemon(t, data)
	empty := data + "/lake"
	if r := d.want(run(t, "", "lake", "cat", "--lake", empty), exitNotFound, "is empty: a Tap object says what is copied"); r.out != "" {
		t.Errorf("written: %q", r.out)
	}
	d.want(run(t, "", "lake", "ls", "--lake", empty), 0, "is empty", "FILE")
	if r := d.want(run(t, "", "lake", "ls", "--lake", empty, "-o", "json"), 0); r.out != "[]\n" {
		t.Errorf("json: %q", r.out)
	}
	d.want(run(t, "", "lake", "cat", "--lake", t.TempDir()), exitNotFound, "holds no lake")
	d.want(run(t, "", "lake", "cat", "raw/service=x", "--lake", empty), exitNotFound, "neither here nor in the lake")
}

func TestTheFirstSignalDrainsAndASecondEndsAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		second syscall.Signal
		code   int
		want   string
	}{
		{"the echo that timeout sends", syscall.SIGINT, exitDone, "stopping"},
		{"another signal", syscall.SIGTERM, exitFailed, "second signal: ended without waiting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := exec.Command(os.Args[0], "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--xds", "127.0.0.1:0", "--drain-time", "10s")
			c.Env = append(os.Environ(), asBinary+"=1")
			var log bytes.Buffer
			c.Stderr = &log
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Process.Kill() }() // ended by then
			var announced strings.Builder
			for b := make([]byte, 256); !strings.Contains(announced.String(), "http "); {
				n, err := out.Read(b)
				announced.Write(b[:n])
				if err != nil {
					t.Fatalf("%v: %s%s", err, announced.String(), log.String())
				}
			}
			// A request that does not end holds the drain up.
			address := strings.Fields(announced.String()[strings.Index(announced.String(), "http "):])[1]
			held := hold(t, address)
			for _, sig := range []syscall.Signal{syscall.SIGINT, tt.second} {
				if err := c.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			if tt.code == exitDone {
				held.Close() //nolint:errcheck // it only held
			}
			_ = c.Wait() // the code says it
			if got := c.ProcessState.ExitCode(); got != tt.code || !strings.Contains(log.String(), tt.want) {
				t.Errorf("exit: got %d, want %d with %q\n%s", got, tt.code, tt.want, log.String())
			}
		})
	}
}

// hold begins a request whose body never ends, and returns when the server reads it.
func hold(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // only held
	if _, err := io.WriteString(conn, "PUT /v1/objects/Tap/x HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "100") {
		t.Fatalf("got %q, %v", line, err)
	}
	return conn
}
