// SPDX-License-Identifier: Apache-2.0

package lake

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// readWithPyArrow prints what matters of the lake as another project's reader
// sees it: partitions as columns, types, values.
const readWithPyArrow = `
import sys, pyarrow.dataset as ds, pyarrow as pa
d = ds.dataset(sys.argv[1], format="parquet", partitioning="hive")
t = d.to_table().sort_by("path")
s = t.schema
assert s.field("time").type == pa.timestamp("us", tz="UTC"), s.field("time").type
assert pa.types.is_binary(s.field("request_body").type), s.field("request_body").type
assert pa.types.is_list(s.field("request_headers").type), s.field("request_headers").type
r = t.to_pylist()
print(len(r), r[0]["service"], r[0]["hour"], r[0]["status"], r[0]["path"], r[0]["time"].isoformat())
print(r[0]["request_headers"][0], r[0]["request_body"], r[0]["upstream_response_us"], r[0]["response_start_us"])
print(d.to_table(filter=(ds.field("service") == "orders") & (ds.field("path") == "/v1/7")).num_rows)
`

// python returns an interpreter that has pyarrow, in an environment that is kept
// in the user's cache.
func python(t *testing.T) string {
	t.Helper()
	if os.Getenv("OUTRIGGER_PEERS") == "" {
		t.Skip("installs pyarrow from PyPI: set OUTRIGGER_PEERS=1")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "outrigger-peers", "pyarrow-26")
	bin := filepath.Join(dir, "bin", "python")
	if exec.Command(bin, "-c", "import pyarrow").Run() == nil {
		return bin
	}
	for _, c := range [][]string{{"python3", "-m", "venv", dir}, {bin, "-m", "pip", "install", "--quiet", "pyarrow==26.0.1"}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(c, " "), err, out)
		}
	}
	return bin
}

func TestPyArrowReadsTheFiles(t *testing.T) {
	py := python(t)
	dir := t.TempDir()
	l := mustOpen(t, Config{Dir: dir})
	mustAppend(t, l, "n", "b", 1, records(0, 1000))
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "n", "b", 2, records(1000, 1500))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(py, "-c", readWithPyArrow, filepath.Join(dir, "raw")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := "1500 orders 3 503 /v1/0 2026-01-02T03:04:05.678901+00:00\n" +
		"{'name': 'a', 'value': '1'} b'\\x00\\xffbody' None 4000\n1\n"
	if string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
}
