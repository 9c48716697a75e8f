// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const h2loadText = `starting benchmark...
finished in 3.00s, 151234.67 req/s, 10.53MB/s
requests: 453704 total, 454216 started, 453704 done, 453700 succeeded, 4 failed, 0 errored, 0 timeout
status codes: 453701 2xx, 1 3xx, 0 4xx, 2 5xx
traffic: 31.58MB (33113808) total, 4.33MB (4536992) headers (space savings 94.12%), 18.17MB (19055568) data
                     min         max         mean         sd        +/- sd
time for request:      541us     12.07ms      3.37ms       701us    74.89%
`

func TestH2loadsTextIsRead(t *testing.T) {
	r, err := parseH2load(h2loadText)
	if err != nil {
		t.Fatal(err)
	}
	if r.Done != 453700 || r.Failed != 7 || r.Seconds != 3 || r.bytes != 19055568 || r.Failure == nil {
		t.Errorf("got %+v", r)
	}
	for _, line := range []string{"finished in", "requests", "status codes", "traffic"} {
		var without []string
		for l := range strings.Lines(h2loadText) {
			if !strings.HasPrefix(l, line) {
				without = append(without, l)
			}
		}
		if _, err := parseH2load(strings.Join(without, "")); err == nil || !strings.Contains(err.Error(), line) {
			t.Errorf("without %q: %v", line, err)
		}
	}
}

// loopback runs the own servers without a proxy before them.
func loopback(t *testing.T) *servers {
	t.Helper()
	v, err := (&session{}).startServers()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.close)
	return v
}

func TestTheLoadsFindNothingWrongWithTheServersThemselves(t *testing.T) {
	v := loopback(t)
	for name, c := range map[string]struct {
		port int
		load func(context.Context, *target) (outcome, error)
	}{
		"unary":    {v.grpc, loadGRPC(false, 3, 5)},
		"streams":  {v.grpc, loadGRPC(true, 3, 5)},
		"download": {v.source, loadDownload(2)},
		"echo":     {v.echo, loadEcho(3)},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := c.load(t.Context(), &target{port: c.port, duration: 300 * time.Millisecond})
			if err != nil || out.Failed != 0 || out.Done == 0 || out.Seconds <= 0 {
				t.Errorf("got %+v, %v", out, err)
			}
		})
	}
}

func TestALoadTellsWhatIsWrong(t *testing.T) {
	v := loopback(t)
	// An echo is no gRPC, and ends neither call nor connection in order.
	out, err := loadGRPC(false, 1, 1)(t.Context(), &target{port: v.echo, duration: 10 * time.Millisecond})
	if err != nil || out.Failed == 0 || out.Failure == nil {
		t.Errorf("got %+v, %v", out, err)
	}
	out, err = loadEcho(1)(t.Context(), &target{port: v.source, duration: 10 * time.Millisecond})
	if err != nil || out.Failed == 0 || out.Failure == nil {
		t.Errorf("got %+v, %v", out, err)
	}
}

// secureServer is net/http with the run's certificate.
func secureServer(t *testing.T, c credentials, resumes bool) int {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: !resumes, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("x", bodies[0].size)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestHandshakesAreResumedOrNotAsTheyShouldBe(t *testing.T) {
	c, err := makeCredentials(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ serverResumes, load, fails bool }{
		{true, false, false}, {true, true, false}, {false, true, true},
	} {
		t.Run(fmt.Sprintf("%+v", x), func(t *testing.T) {
			to := &target{s: &session{tls: c}, port: secureServer(t, c, x.serverResumes), duration: 50 * time.Millisecond}
			out, err := loadHandshakes(x.load)(t.Context(), to)
			if err != nil {
				t.Fatal(err)
			}
			if x.fails != (out.Failed > 0) || x.fails == (out.Done > 0) {
				t.Errorf("got %+v", out)
			}
		})
	}
}

func TestATallyKeepsTheFirstFailure(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	var x, y tally
	x.fail(a)
	x.fail(b)
	y.done(time.Now())
	out := sum([]tally{y, x})
	if out.Done != 1 || out.Failed != 2 || !errors.Is(out.Failure, a) {
		t.Errorf("got %+v", out)
	}
}

func TestScenariosChooseTheParts(t *testing.T) {
	for _, c := range []struct {
		o               Options
		loads           []string
		load, protocols bool
	}{
		{Options{}, append(bodyNames(), scenarioNames()...), true, true},
		{Options{}, []string{"small"}, true, false},
		{Options{}, []string{"grpc-unary"}, false, true},
		{Options{Idle: true}, []string{"small", "grpc-unary"}, false, false},
		{Options{Protocol: true}, []string{"small", "grpc-unary"}, false, true},
	} {
		o := c.o
		o.choose(c.loads)
		if o.Load != c.load || o.Protocol != c.protocols || len(o.Bodies)+len(o.Protocols) != len(c.loads) {
			t.Errorf("%q: got %+v", c.loads, o)
		}
	}
}

// TestEveryBarNamesAScenario: a typing error would be a bar that is never judged.
func TestEveryBarNamesAScenario(t *testing.T) {
	for name := range protocolBars {
		if !slices.Contains(scenarioNames(), name) {
			t.Errorf("%q is no scenario", name)
		}
	}
}

func TestProtocolBarsAreJudgedByMedian(t *testing.T) {
	row := func(proxy, scenario string, cpu float64) ProtocolRow {
		return ProtocolRow{Proxy: proxy, Scenario: scenario, Samples: []Sample{{CPUMicros: cpu}}}
	}
	r := &Result{Protocols: []ProtocolRow{
		row("sidecar-on", "h2c-16x32", 7), row("haproxy", "h2c-16x32", 10), row("envoy-on", "h2c-16x32", 30),
		row("sidecar-on", "handshake-full", 11), row("haproxy", "handshake-full", 10), row("envoy-on", "handshake-full", 1),
		row("sidecar-on", "tcp-bulk", 5), row("haproxy", "tcp-bulk", 1),
	}, IdleTLS: []IdleRow{
		{Proxy: "sidecar-on", Rounds: []IdleRound{{BytesPerConnection: 11e3}}},
		{Proxy: "haproxy", Rounds: []IdleRound{{BytesPerConnection: 10e3}}},
	}}
	var got []bool
	for _, v := range judge(r) {
		got = append(got, v.Holds)
	}
	// h2c against HAProxy, against Envoy; a handshake; idle TLS, and against HAProxy.
	if want := []bool{true, false, false, true, false}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: %+v", got, want, judge(r))
	}
}
