// SPDX-License-Identifier: Apache-2.0

package archtest

// module is the path that all packages begin with.
const module = "github.com/outrigger-mesh/outrigger/"

// layer is a height in the import order: a package imports only from below, and
// from its own layer only what siblings allows.
type layer int

const (
	l0 layer = iota // vocabulary
	l1              // codecs, event loop, plain resources
	l2              // what the data path is made of
	l3              // one technology each: a filter, xDS, gRPC, files
	l4              // the parts that are joined into programs; never each other
	l5              // programs
)

// layers places every package. A path that ends in /... stands for all below it; the
// longest that fits counts.
var layers = map[string]layer{
	"pkg/broadcast":    l0, // imports nothing of ours
	"pkg/certchain":    l0,
	"pkg/codec":        l0,
	"pkg/event":        l0, // what happened; imports nothing of ours
	"pkg/ring":         l0, // queues of whatever; imports nothing of ours
	"pkg/statefile":    l0, // imports nothing of ours
	"pkg/substitution": l0,

	"pkg/codec/...":    l1,
	"pkg/reactor/...":  l1,
	"pkg/record":       l1,
	"pkg/xds/resource": l1,

	"pkg/accesslog":     l2,
	"pkg/bootstrap":     l2,
	"pkg/breaker":       l2,
	"pkg/filter":        l2,
	"pkg/identity":      l2,
	"pkg/lb":            l2,
	"pkg/mesh":          l2,
	"pkg/metrics":       l2,
	"pkg/mtls":          l2,
	"pkg/overload":      l2,
	"pkg/ratelimit":     l2,
	"pkg/registry":      l2,
	"pkg/responsecache": l2,
	"pkg/tap":           l2,
	"pkg/trace":         l2,

	"pkg/accesslog/...": l3,
	"pkg/breaker/...":   l3,
	"pkg/dns":           l3,
	"pkg/dns/dnstest":   l3,
	"pkg/dnscluster":    l3,
	"pkg/filter/...":    l3,
	"pkg/grpcdial":      l3,
	"pkg/handover":      l3,
	"pkg/health":        l3,
	"pkg/intercept":     l3,
	"pkg/lake":          l3,
	"pkg/lake/...":      l3,
	"pkg/lb/lbtest":     l3,
	"pkg/metrics/...":   l3,
	"pkg/spans":         l3,
	"pkg/systemd":       l3,
	"pkg/tap/...":       l3,
	"pkg/trace/...":     l3,
	"pkg/xds/...":       l3,
	"api/...":           l0, // generated messages; imports nothing of ours

	"pkg/admin/...":        l4,
	"pkg/agent":            l4,
	"pkg/controlplane/...": l4,
	"pkg/proxy/...":        l4,

	"cmd/...":            l5,
	"bench/...":          l5,
	"examples/...":       l5,
	"internal/...":       l5,
	"internal/footprint": l0, // what programs call first; imports nothing of ours
	"internal/gcpace":    l0, // of the process, as footprint is
	"internal/coredump":  l0, // both programs hold keys
	"internal/buildinfo": l0, // every program names its build
	"internal/interrupt": l0, // both programs end alike
	"internal/freeport":  l0, // for what starts processes: tests, benchmarks, examples
	"internal/launch":    l0, // likewise
	"internal/programs":  l0, // likewise
	"test/...":           l5,

	"internal/freeport/freeporttest": l0, // freeport's, for tests
}

// sibling allows an import within one layer.
type sibling struct{ from, to, why string }

var siblings = []sibling{
	{"pkg/registry", "pkg/mesh", "the registry stores the model's instances"},
	{"pkg/codec/http2", "pkg/codec/hpack", "header compression is a part of HTTP/2"},
	{"pkg/filter/all", "pkg/filter/...", "the explicit list of the filters"},
	{"pkg/breaker/hystrixcommand", "pkg/breaker/hystrixconfig", "the control plane's commands take the same settings"},
	{"pkg/dnscluster", "pkg/dns", "names are looked up by its client"},
	{"pkg/xds/client", "pkg/xds/decode", "what is received is decoded before it is acknowledged"},
	{"pkg/xds/xdstest", "pkg/xds/decode", "test servers read bootstraps with the client's own types"},
	{"pkg/reactor/sim", "pkg/reactor", "the simulation sits below the reactor's seam"},
	{"pkg/controlplane", "pkg/controlplane/...", "parts of the control plane"},
	{"pkg/controlplane/...", "pkg/controlplane/store", "REST and files write to the store"},
	{"pkg/controlplane/rest", "pkg/controlplane/authority", "REST shows the authority's status"},
	{"cmd/...", "cmd/...", "one program"},
	{"internal/...", "internal/...", "tools and tests"},
	{"test/...", "test/...", "tests"},
	{"bench/...", "bench/...", "one program"},
	{"examples/...", "examples/...", "one program"},
}

// forbidden is an import that some packages must not have, whatever their layer.
type forbidden struct {
	imports string // a path, or a prefix that ends in /...
	not     []string
	except  []string
	why     string
}

// dataPath are the packages that run on an event loop.
var dataPath = []string{
	"pkg/reactor/...", "pkg/codec/...", "pkg/proxy", "pkg/filter/...", "pkg/lb", "pkg/breaker", "pkg/ratelimit", "pkg/record", "pkg/responsecache", "pkg/ring", "pkg/substitution",
}

var everything = []string{"pkg/..."}

var forbiddens = []forbidden{
	{
		"github.com/envoyproxy/...", everything,
		[]string{"pkg/xds/decode", "pkg/xds/encode", "pkg/xds/client", "pkg/xds/server", "pkg/xds/xdstest", "pkg/accesslog/als", "pkg/controlplane/testdata/..."},
		"protobuf stops at pkg/xds: the data path sees plain immutable resources",
	},
	{
		"google.golang.org/protobuf/...", dataPath, []string{"pkg/filter/adaptiveconcurrency", "pkg/filter/grpcstats", "pkg/filter/router", "pkg/filter/statefulsession", "pkg/filter/tap"},
		"protobuf stops at pkg/xds; a filter may parse its own configuration",
	},
	{
		"google.golang.org/grpc/...", everything,
		[]string{"pkg/xds/client", "pkg/xds/server", "pkg/xds/xdstest", "pkg/grpcdial", "pkg/health", "pkg/agent", "pkg/controlplane/sidecarservice", "pkg/trace/export", "pkg/accesslog/als", "pkg/controlplane/testdata/..."},
		"gRPC is for xDS, the sidecar service and exporters; the data path has its own codecs",
	},
	{"net/http", dataPath, nil, "the data path has its own codecs; net/http brings goroutines and allocations"},
	{"net/http", []string{"pkg/tap", "pkg/trace", "pkg/accesslog", "pkg/metrics", "pkg/mesh", "pkg/registry"}, nil, "these are used on or next to the loop, or are pure"},
	{"golang.org/x/sys/unix", everything, []string{"pkg/reactor", "pkg/systemd"}, "the reactor is the only package that makes syscalls on sockets"},
	{"github.com/afex/hystrix-go/...", everything, []string{"pkg/breaker/hystrixconfig", "pkg/breaker/hystrixcommand", "pkg/breaker/hystrixoracle", "pkg/breaker/hystrixstream"}, "hystrix-go stays off the request path (docs/adr/0004)"},
	{"github.com/parquet-go/...", everything, []string{"pkg/lake"}, "only the lake writer knows Parquet"},
	{"go.etcd.io/bbolt", everything, []string{"pkg/controlplane/store"}, "only the store knows its engine"},
	{module + "pkg/xds/client", []string{"pkg/proxy"}, nil, "cmd/sidecar joins them"},
	{module + "pkg/xds/decode", []string{"pkg/proxy", "pkg/admin"}, nil, "cmd/sidecar joins them"},
	{module + "...", []string{"pkg/codec", "pkg/ring", "pkg/substitution"}, nil, "the vocabulary imports nothing of ours"},
	{"fmt", []string{"pkg/codec", "pkg/codec/http1", "pkg/codec/http2", "pkg/codec/hpack", "pkg/record", "pkg/ring"}, nil, "no fmt where every byte passes"},
	{"log", everything, nil, "logs are structured: log/slog"},
	{"math/rand", everything, nil, "math/rand/v2, or the loop's own source"},
	{"unsafe", dataPath, []string{"pkg/reactor"}, "only the syscalls need it"},
}

// linked is what a program must not link, not even by way of others.
type linked struct{ program, not, why string }

var links = []linked{
	{"cmd/sidecar", "github.com/parquet-go/...", "heavy drivers belong to the control plane: a sidecar is small"},
	{"cmd/sidecar", "go.etcd.io/bbolt", "the store belongs to the control plane"},
	{"cmd/sidecar", module + "pkg/controlplane/...", "the control plane's side"},
	{"cmd/sidecar", module + "pkg/lake", "the sidecar hands tapped traffic over, it writes no lake"},
	{"cmd/sidecar", "github.com/afex/hystrix-go/...", "every one of its circuits costs goroutines that never end"},
	{"cmd/controlplane", module + "pkg/proxy", "the control plane carries no traffic"},
	{"cmd/controlplane", module + "pkg/reactor", "the control plane carries no traffic"},
}
