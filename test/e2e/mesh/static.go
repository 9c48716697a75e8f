// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// StaticOptions say what a sidecar with a bootstrap file is like.
type StaticOptions struct {
	Upstream string // address that every request goes to
	// Manager is further lines for the connection manager, each indented by ten
	// spaces.
	Manager string
	// TCP hands connections on as they are, in place of the connection manager.
	TCP bool
	// Cluster is further lines for the cluster, each indented by four spaces.
	Cluster string
	// Files is the limit on open files, soft and hard; 0 leaves the test's own.
	Files int
	Flags []string
	// Program is a copy of the sidecar to start; empty: the one that was built.
	Program string
	Env     []string
	// Around is a program with its arguments that runs the sidecar, which gets its signals
	// from it.
	Around []string
	// Bind has the test bind the listeners and pass them as systemd does.
	Bind bool
}

// StartStatic starts a sidecar with a bootstrap file and without any control
// plane, and waits until it is ready. Inbound is its one listener.
func StartStatic(t testing.TB, dir string, o StaticOptions) *Sidecar {
	t.Helper()
	s := &Sidecar{ID: "static", Inbound: FreeAddress(t), Admin: FreeAddress(t), Data: filepath.Join(dir, "static")}
	file := s.Data + ".yaml"
	b := Bootstrap{Admin: s.Admin, Listen: s.Inbound, Manager: o.Manager, Routes: AllTo("app", "timeout: 0s"), Clusters: StaticCluster("app", o.Cluster, o.Upstream)}
	if o.TCP {
		b.TCP = "app"
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	s.argv = []string{cmp.Or(o.Program, Program("sidecar")), "-c", file, "--concurrency", "1", "--drain-time-s", "1"}
	s.argv = append(slices.Clone(o.Around), limited(append(s.argv, o.Flags...), o.Files)...)
	s.env = o.Env
	if o.Bind {
		s.bind(t)
	}
	s.start(t)
	s.AwaitReady()
	return s
}

// bind binds the listener and the admin port here. LISTEN_PID is the process's own,
// which only it knows before it becomes the sidecar.
func (s *Sidecar) bind(t testing.TB) {
	t.Helper()
	for _, address := range []string{s.Inbound, s.Admin} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close() // the file is the same socket
		t.Cleanup(func() { _ = f.Close() })
		s.sockets = append(s.sockets, f)
	}
	s.env = append(s.env, "LISTEN_FDS=2", "LISTEN_FDNAMES=in:admin")
	s.argv = append([]string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, s.argv...)
}

// limited is a command line that runs with a limit on open files; 0: none.
func limited(argv []string, files int) []string {
	if files == 0 {
		return argv
	}
	return append([]string{"/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, files), "sh"}, argv...)
}

// StartDynamic starts a sidecar with a bootstrap file that names nothing but a
// management server, as node "dynamic", without waiting for it. The API type is
// GRPC or DELTA_GRPC.
func StartDynamic(t testing.TB, dir, xds, apiType string) *Sidecar {
	t.Helper()
	s := &Sidecar{ID: "dynamic", Admin: FreeAddress(t), Data: filepath.Join(dir, "dynamic")}
	file := s.Data + ".yaml"
	text := fmt.Sprintf(`node: {id: dynamic, cluster: dynamic}
admin: {address: %s}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
  cds_config: {resource_api_version: V3, ads: {}}
  lds_config: {resource_api_version: V3, ads: {}}
static_resources:
  clusters:
%s`, SocketAddress(s.Admin), apiType, StaticCluster("xds", "    http2_protocol_options: {}", xds))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.argv = []string{Program("sidecar"), "-c", file, "--concurrency", "1", "--drain-time-s", "1"}
	s.start(t)
	return s
}

// StartFile starts a sidecar with the text of a bootstrap, which has admin as its
// admin address, and waits until it is ready.
func StartFile(t testing.TB, dir, text, admin string, flags ...string) *Sidecar {
	t.Helper()
	s := &Sidecar{ID: "file", Admin: admin, Data: filepath.Join(dir, "file")}
	file := s.Data + ".yaml"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.argv = append([]string{Program("sidecar"), "-c", file, "--concurrency", "1", "--drain-time-s", "1"}, flags...)
	s.start(t)
	s.AwaitReady()
	return s
}
