// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// readLine reads a command line as the commands do, and runs nothing.
func readLine(t *testing.T, line string) (Options, error) {
	t.Helper()
	c := newCommand(parts{})
	c.ResetFlags()
	f := bindFlags(c)
	if err := c.ParseFlags(strings.Fields(line)); err != nil {
		return Options{}, err
	}
	return f.read(c)
}

func TestTheCommandLineIsRefusedByFlag(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const ok = "--service orders --controlplane 127.0.0.1:15010 "
	for _, tc := range []struct{ name, line, want string }{
		{"nothing", "", "--service: give --service and --controlplane, or a bootstrap"},
		{"service alone", "--service a", "--controlplane: required with --service"},
		{"control plane alone", "--controlplane 127.0.0.1:1", "--service: required with --controlplane"},
		{"both sources", ok + "-c " + file, "--controlplane: not together with --config-path"},
		{"service name", "--service Orders --controlplane 127.0.0.1:1", `--service: "Orders": want lower-case`},
		{"control plane without port", "--service a --controlplane host", `--controlplane: "host": want HOST:PORT`},
		{"control plane port 0", "--service a --controlplane host:0", "--controlplane: \"host:0\": port \"0\""},
		{"app is a socket", ok + "--app unix:/x", "--app: \"unix:/x\": a Unix socket as the application is not supported"},
		{"app port", ok + "--app 127.0.0.1:99999", `--app: "127.0.0.1:99999": port "99999"`},
		{"health without app", ok + "--health /h", "--health: needs --app"},
		{"health path", ok + "--app 127.0.0.1:1 --health h", `--health: "h": want a path`},
		{"inbound socket", ok + "--app 127.0.0.1:1 --inbound unix:/x", "--inbound: \"unix:/x\": other sidecars cannot reach"},
		{"inbound name", ok + "--inbound host:1", `--inbound: "host:1": want an IP address to listen on`},
		{"outbound socket without path", ok + "--outbound unix:", "--outbound: \"unix:\": want unix:PATH"},
		{"outbound socket too long", ok + "--outbound unix:" + strings.Repeat("x", 108), "1 to 107 bytes"},
		{"two on one address", ok + "--outbound 127.0.0.1:5 --admin 127.0.0.1:5", "must differ"},
		{"allow-any", ok + "--outbound-policy allow-any", "--outbound-policy: allow-any is not supported in this version"},
		{"policy", ok + "--outbound-policy maybe", `--outbound-policy: "maybe": want registry-only`},
		{"id", ok + "--id a/b", `--id: "a/b"`},
		{"label", ok + "--label a/b=c", `--label: key "a/b"`},
		{"admin off loopback", ok + "--admin 0.0.0.0:15000", "--admin: 0.0.0.0:15000 is not loopback: give --admin-token-file"},
		{"admin on every address", ok + "--admin :15000", "--admin: :15000 is not loopback"},
		{"level", ok + "-l loud", `--log-level: "loud": want trace`},
		{"strategy", ok + "--drain-strategy slow", `--drain-strategy: "slow": want gradual or immediate`},
		{"mode", ok + "--mode init_only", "--mode: init_only is not supported"},
		{"drain time", ok + "--drain-time-s -1", "--drain-time-s: -1: want 0 to 604800"},
		{"drain time beyond reason", ok + "--drain-time-s 9223372036854775807", "--drain-time-s: 9223372036854775807: want"},
		{"concurrency", ok + "--concurrency 2000", "--concurrency: 2000: want at most 1024"},
		{"missing token file", ok + "--token-file " + dir + "/none", "--token-file: " + dir + "/none: no such file or directory"},
		{"missing bootstrap", "-c " + dir + "/none", "--config-path: " + dir + "/none: no such file or directory"},
		{"bootstrap is a folder", "-c " + dir, "is a folder, want a file"},
		{"common flag with a bootstrap", "-c " + file + " --outbound 127.0.0.1:1", "--outbound: only with --controlplane"},
		{"token with a bootstrap", "-c " + file + " --token-file " + file, "--token-file: only with --controlplane"},
		{"unknown flag", "--pubsub 127.0.0.1:3500", "unknown flag: --pubsub"},
		{"number", "--concurrency many", "--concurrency"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := readLine(t, tc.line)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestEveryFaultIsToldAtOnce(t *testing.T) {
	_, err := readLine(t, "--service A --controlplane x --admin 1.2.3.4:1 --drain-strategy x")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"--service", "--controlplane", "--admin", "--drain-strategy"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in: %v", want, err)
		}
	}
}

func TestWhatIsNotGivenHasADefault(t *testing.T) {
	o, err := readLine(t, "--service orders --app 127.0.0.1:8080 --controlplane 127.0.0.1:15010")
	if err != nil {
		t.Fatal(err)
	}
	if o.Inbound != ":15006" || o.Outbound != "127.0.0.1:15001" || o.Admin != "127.0.0.1:15000" || o.Data != "./outrigger-sidecar" ||
		o.DrainTime != 15*time.Second || o.Concurrency != runtime.NumCPU() || !strings.HasSuffix(o.ID, "-15006") {
		t.Errorf("got %+v", o)
	}
	seen := map[string]bool{}
	for _, outbound := range []string{"127.0.0.1:15001", "127.0.0.1:15101", "127.0.0.2:15001"} { // callers without an application
		o, err = readLine(t, "--service web --controlplane 127.0.0.1:15010 --outbound "+outbound)
		if err != nil {
			t.Fatal(err)
		}
		if id := o.Node().ID; seen[id] {
			t.Errorf("two sidecars have the id %s", id)
		} else {
			seen[id] = true
		}
	}
	o, err = readLine(t, "--config-yaml {} --concurrency 0 --drain-time-s 0")
	if err != nil {
		t.Fatal(err)
	}
	if o.Inbound != "" || o.Admin != "" || o.Data != "" || o.Concurrency != 1 || o.DrainTime != 0 {
		t.Errorf("got %+v, want nothing that the bootstrap says and Envoy's reading of 0", o)
	}
	if o, err = readLine(t, "--config-yaml {}"); err != nil || o.DrainTime != 600*time.Second {
		t.Errorf("got %v, %v, want Envoy's drain time", o.DrainTime, err)
	}
}

func TestEnvoysFlagsAreAccepted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := readLine(t, "-c "+file+" -l debug --base-id 3 --drain-time-s 5 --drain-strategy immediate --parent-shutdown-time-s 9 --service-node n --service-cluster c --service-zone z --concurrency 2 --admin-address-path a")
	if err != nil {
		t.Fatal(err)
	}
	want := Options{
		ConfigPath: file, LogLevel: "debug", BaseID: 3, DrainTime: 5 * time.Second, DrainStrategy: "immediate",
		ParentShutdownTime: 9 * time.Second, ServiceNode: "n", ServiceCluster: "c", Zone: "z", Concurrency: 2,
		AdminAddressPath: "a", Mode: "serve", MaxResponseBytes: 16 << 20,
		DrainOrder: "together", DrainIdle: time.Second, SettleTime: 500 * time.Millisecond,
	}
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}
	if n := o.Node(); n.ID != "n" || n.Cluster != "c" || n.Zone != "z" || n.Metadata != nil {
		t.Errorf("got node %+v", n)
	}
}

func TestTheNodeTellsTheControlPlaneWhatToBuild(t *testing.T) {
	for _, tc := range []struct {
		name, line string
		want       Node
	}{
		{
			"beside an application", "--service orders --id one --app localhost:8080 --controlplane 127.0.0.1:1 --zone z --region r",
			Node{ID: "orders~one", Cluster: "orders", Zone: "z", Region: "r", Metadata: map[string]string{
				"service": "orders", "inbound": "0.0.0.0:15006", "outbound": "127.0.0.1:15001", "app": "127.0.0.1:8080", "outboundPolicy": "registry-only",
			}},
		},
		{
			"only calling others", "--service web --id one --controlplane 127.0.0.1:1 --outbound unix:/run/o.sock --service-node n",
			Node{ID: "n", Cluster: "web", Metadata: map[string]string{
				"service": "web", "outbound": "unix:/run/o.sock", "outboundPolicy": "registry-only",
			}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, err := readLine(t, tc.line)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.UserAgentName, tc.want.UserAgentVersion = "outrigger-sidecar", version()
			if got := o.Node(); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestTheDefaultIDIsTheSameAfterARestart(t *testing.T) {
	for listening, want := range map[string]string{
		"127.0.0.1:15001": "h-15001", "0.0.0.0:15006": "h-15006", "[::]:15006": "h-15006", "localhost:15001": "h-15001",
		"127.0.0.2:15001": "h-127.0.0.2-15001", "[::1]:15001": "h-1-15001", "10.0.0.1:15006": "h-15006",
	} {
		if got := defaultID("h", listening); got != want {
			t.Errorf("%s: %q, want %q", listening, got, want)
		}
	}
	if got := defaultID("host.example", ":15006"); got != "host.example-15006" {
		t.Errorf("got %q", got)
	}
	if got := defaultID("Jürgens Rechner!", ":1"); got != "J-rgens-Rechner-1" {
		t.Errorf("got %q", got)
	}
	if got := defaultID("", ":0"); !strings.HasPrefix(got, "host-") || got == "host-0" {
		t.Errorf("got %q", got)
	}
}

func TestHelpTeaches(t *testing.T) {
	for name, args := range map[string][]string{
		"help": {"--help"}, "help-exec": {"exec", "--help"}, "help-validate": {"validate", "--help"},
		"help-explain": {"explain", "--help"}, "help-version": {"version", "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCommand(parts{})
			var out bytes.Buffer
			c.SetOut(&out)
			c.SetArgs(args)
			if err := c.ExecuteContext(context.Background()); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), want) {
				t.Errorf("help has changed (go test -update rewrites %s):\n%s", path, out.String())
			}
		})
	}
}

func TestTheCommandLineHasStableExitCodes(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"version", []string{"--version"}, exitOK, "sidecar version "},
		{"valid bootstrap", []string{"validate", "--config-yaml", "{}"}, exitOK, "configuration '--config-yaml' OK"},
		{"valid by mode", []string{"--mode", "validate", "--config-yaml", "{}"}, exitOK, "OK"},
		{"bad bootstrap", []string{"validate", "--config-yaml", "bad"}, exitConfiguration, "--config-yaml:1: admin: want an object"},
		{"bad bootstrap by mode", []string{"--mode", "validate", "--config-yaml", "bad"}, exitConfiguration, "admin: want an object"},
		{"bad value", []string{"--service", "a", "--controlplane", "x"}, exitConfiguration, "--controlplane"},
		{"unknown flag", []string{"--pubsub", "x"}, exitUsage, "unknown flag: --pubsub"},
		{"unknown flag of a command", []string{"validate", "--x"}, exitUsage, "unknown flag: --x (see sidecar validate --help)"},
		{"unknown command", []string{"gateway"}, exitUsage, `unknown command "gateway"`},
		{"exec without a command", []string{"exec", "--service", "a"}, exitUsage, "want a command after --"},
		{"metadata address", []string{"--service", "a", "--controlplane", "169.254.169.254:80"}, exitConfiguration, "never dialled"},
		{"plaintext off the host", []string{"--service", "a", "--controlplane", "192.0.2.1:15010", "--data", t.TempDir()}, exitConfiguration, "--insecure-xds"},
		{"completion", []string{"completion", "bash"}, exitOK, "bash completion"},
		{"completion of no shell", []string{"completion", "bsh"}, exitUsage, `unknown command "bsh"`},
		{"completion alone", []string{"completion"}, exitOK, "bash"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			startSidecar(t, tc.args...).wantExit(tc.code, tc.want)
		})
	}
}
