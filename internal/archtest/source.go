// SPDX-License-Identifier: Apache-2.0

package archtest

// Limits of a file, in lines. Generated files are free.
const (
	usualLines = 500
	mostLines  = 800
)

// longFiles may have more than usualLines, none more than mostLines.
var longFiles = map[string]string{}

// construct is something that source code may contain.
type construct string

const (
	goStatement construct = "a go statement"
	channel     construct = "a channel"
	clock       construct = "a clock read (time.Now, Since, Until, After, NewTimer, NewTicker)"
	mutex       construct = "a lock (sync.Mutex, RWMutex, Cond, Pool)"
	initFunc    construct = "func init"
	background  construct = "context.Background or context.TODO"
	sleep       construct = "time.Sleep"
	anyLiteral  construct = "interface{}"
)

// ban forbids a construct in some packages.
type ban struct {
	what    construct
	in      []string
	tests   bool              // in _test.go files too
	polling bool              // allowed inside a for statement, which checks a condition
	except  map[string]string // file → reason
	why     string
}

// loopPackages have code that runs on a loop.
var loopPackages = []string{
	"pkg/reactor", "pkg/codec/...", "pkg/proxy", "pkg/filter/...", "pkg/lb", "pkg/breaker", "pkg/ratelimit", "pkg/record", "pkg/responsecache", "pkg/ring", "pkg/substitution",
	"pkg/trace",
}

// offLoop are the files of loopPackages whose code, or the named part of it, runs
// on goroutines of its own, which the file says.
var offLoop = map[string]string{
	"pkg/breaker/circuit.go":       "the sums of the merge tick; loops read and write atomics",
	"pkg/breaker/ejection.go":      "outlier detection runs on the merge tick; loops read an atomic",
	"pkg/breaker/eventlog.go":      "ejections are written and shown off the loops, with the wall clock",
	"pkg/proxy/drain.go":           "the caller waits until the loops have drained",
	"pkg/proxy/handover.go":        "the caller waits until the loops have given what idles",
	"pkg/proxy/offloop.go":         "readers of the rings and the merge tick",
	"pkg/proxy/proxy.go":           "Run starts the loops; Apply serialises its callers",
	"pkg/proxy/status_gather.go":   "the admin side waits for copies that the loops make",
	"pkg/proxy/status_health.go":   "the admin side's own clock and state",
	"pkg/proxy/zones.go":           "Apply and the merge tick take turns",
	"pkg/reactor/inherit_linux.go": "listening sockets belong to the process; loops do not call it",
	"pkg/reactor/kernel_linux.go":  "the seam that a tick reads its clock through",
	"pkg/reactor/sockets.go":       "listening sockets belong to the process; loops do not call it",
	"pkg/trace/plan.go":            "records become spans off the loops; one scratch span per plan",
	"pkg/proxy/overloadwatch.go":   "looks at memory, files and the delay of loops, on a goroutine of its own",
}

var bans = []ban{
	{goStatement, loopPackages, false, false, offLoop, "no goroutine starts on a loop; each has one owner"},
	{channel, loopPackages, false, false, offLoop, "a loop never blocks: off-loop callers post to its mailbox"},
	{clock, loopPackages, false, false, offLoop, "the clock is read once per tick; now is an argument"},
	{mutex, loopPackages, false, false, offLoop, "a loop's state has one owner"},
	{initFunc, ownCode, true, false, nil, "lists are explicit values: order is visible, nothing is registered by import"},
	{anyLiteral, ownCode, true, false, nil, "write any"},
	{sleep, []string{"pkg/...", "cmd/...", "test/..."}, true, true, nil, "wait for a condition with a deadline"},
	{background, []string{"pkg/..."}, false, false, map[string]string{
		"pkg/trace/export/batcher.go": "the batcher outlives the call that configured it; Pool.Close ends it",
		"pkg/trace/export/otlp.go":    "the exporter outlives the call that configured it",
		"pkg/xds/server/server.go":    "the server outlives the call that made it; Close ends it",
		"pkg/xds/xdstest/server.go":   "a server for tests; the test ends it",
	}, "a context comes from the caller"},
}

var ownCode = []string{"pkg/...", "cmd/...", "internal/...", "examples/...", "bench/...", "test/..."}

// noPackageNames say nothing about what is in a package.
var noPackageNames = []string{"util", "utils", "common", "helpers", "helper", "types", "manager", "misc", "base", "shared"}
