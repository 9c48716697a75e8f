// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

const (
	childScriptEnv = "STORE_TEST_SCRIPT"
	// childStepsEnv is how many writes the script has; a longer one for a longer run.
	childStepsEnv = "OUTRIGGER_STORE_STEPS"
	defaultSteps  = 35
)

func steps() int {
	if n, err := strconv.Atoi(os.Getenv(childStepsEnv)); err == nil && n > 0 {
		return n
	}
	return defaultSteps
}

// script writes one thing after the other, and says before and after each what it
// is: "begin KEY VALUE", "done". An empty value is a deletion.
func script(dir string) int {
	s, err := Open(Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	ctx := context.Background()
	do := func(key, value string, f func() error) {
		fmt.Println("begin", key, value)
		if err := f(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("done")
	}
	for i := range steps() {
		name, port := fmt.Sprintf("s%d", i), strconv.Itoa(1000+i)
		switch i % 7 {
		case 3: // the one before, changed
			name = fmt.Sprintf("s%d", i-1)
		case 4:
			do("instance/"+name, "80", func() error {
				_, _, err := s.Registry().Register(ctx, inst("x", name), time.Hour, registry.Match{})
				return err
			})
			continue
		case 5: // two before is gone
			name = fmt.Sprintf("s%d", i-4)
			do("object/"+name, "", func() error {
				_, err := s.DeleteObject(ctx, mesh.Key{Kind: "Service", Name: name}, registry.Match{})
				return err
			})
			continue
		}
		// Some are so large that the file has to grow.
		fill := ""
		for k := range 1 + i%7/6*15 {
			fill += fmt.Sprintf(`"fill%d":"%s",`, k, strings.Repeat("x", 4000))
		}
		do("object/"+name, port, func() error {
			o, err := mesh.ParseOne([]byte(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"` + name +
				`","annotations":{` + strings.TrimSuffix(fill, ",") + `}},"spec":{"ports":[{"port":` + port + `}]}}`))
			if err == nil {
				_, err = s.PutObject(ctx, o, registry.Match{})
			}
			return err
		})
	}
	if err := s.Close(); err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

// promise is what must be there after a crash: everything acknowledged, and of
// the one write under way either outcome.
type promise struct {
	acked      map[string]string
	key, value string // under way; "" for none
}

func newPromise() *promise { return &promise{acked: map[string]string{}} }

func (p *promise) line(text string) {
	switch f := strings.Split(strings.TrimSpace(text)+"  ", " "); f[0] {
	case "begin":
		p.key, p.value = f[1], f[2]
	case "done":
		p.acked[p.key] = p.value
		p.key = ""
	}
}

// check opens the folder as a restart does, and writes to it.
func (p *promise) check(dir string) error {
	s, err := Open(Config{Dir: dir})
	if err != nil {
		return fmt.Errorf("the restart: %w", err)
	}
	m := s.Model()
	got := map[string]string{}
	for name, o := range m.Objects["Service"] {
		ports := o.(*mesh.Service).Spec.Ports
		if len(ports) != 1 {
			return fmt.Errorf("service %s has ports %v", name, ports)
		}
		got["object/"+name] = fmt.Sprint(ports[0].Port)
	}
	for key := range p.acked {
		if id, ok := strings.CutPrefix(key, "instance/"); ok && m.Instance(mesh.InstanceKey{Service: "x", ID: id}) != nil {
			got[key] = "80"
		}
	}
	want := maps.Clone(p.acked)
	maps.DeleteFunc(want, func(_, v string) bool { return v == "" })
	if p.key != "" {
		delete(want, p.key)
		if v := got[p.key]; v != p.acked[p.key] && v != p.value {
			return fmt.Errorf("%s is %q, it was %q and was being made %q", p.key, v, p.acked[p.key], p.value)
		}
		delete(got, p.key)
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("there are %v, acknowledged were %v", got, want)
	}
	o, err := mesh.ParseOne([]byte(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"after"}}`))
	if err == nil {
		_, err = s.PutObject(context.Background(), o, registry.Match{})
	}
	if err != nil {
		return fmt.Errorf("a write after the restart: %w", err)
	}
	return s.Close()
}

// memoryDir is a new folder on a file system in memory where there is one: a process
// that is killed leaves the same there, and thousands of syncs need not wait for a disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "outrigger-store")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a temporary folder
	return dir
}

// TestAProcessKilledAtEveryFileOperationLosesNothing kills the child before its
// first write, sync, truncation or rename, then before its second, and so on
// until it comes to its end.
func TestAProcessKilledAtEveryFileOperationLosesNothing(t *testing.T) {
	t.Parallel()
	root := memoryDir(t)
	for n := 1; ; n++ {
		dir := filepath.Join(root, strconv.Itoa(n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		ops, killed := trace(t, dir, n)
		p := newPromise()
		for _, o := range ops {
			if o.kind == opLine {
				p.line(string(o.data))
			}
		}
		if err := p.check(dir); err != nil {
			t.Errorf("killed before operation %d: %v", n, err)
		}
		if err := os.RemoveAll(dir); err != nil { // memory is small in a container
			t.Error(err)
		}
		if !killed {
			if n < 3*steps() {
				t.Errorf("only %d operations: the test shows nothing", n-1)
			}
			t.Logf("CONFORMANCE C7 %d kills, one before each write, sync, truncation and rename of %d writes: 0 acknowledged lost, every restart serves", n-1, steps())
			return
		}
	}
}

// image is a file as it is on disk and what has been done to it since.
type image struct {
	synced  []byte
	pending []fileOp
}

func apply(b []byte, o fileOp) []byte {
	end := o.offset
	if o.kind == opWrite {
		end += int64(len(o.data))
	}
	if int64(len(b)) < end || o.kind == opTruncate {
		b = append(b[:min(int64(len(b)), end):min(int64(len(b)), end)], make([]byte, end-min(int64(len(b)), end))...)
	}
	if o.kind == opWrite {
		copy(b[o.offset:], o.data)
	}
	return b
}

// crashes are the files that a power failure may leave: of what was not synced
// everything, nothing, all but one, one alone, and one torn in its midst with what
// was there, or garbage, behind.
func (f *image) crashes(r *rand.Rand) map[string][]byte {
	with := func(pick func(i int) []fileOp) []byte {
		b := slices.Clone(f.synced)
		for i := range f.pending {
			for _, o := range pick(i) {
				b = apply(b, o)
			}
		}
		return b
	}
	out := map[string][]byte{
		"nothing": slices.Clone(f.synced),
		"all":     with(func(i int) []fileOp { return f.pending[i : i+1] }),
	}
	for n, o := range f.pending {
		out[fmt.Sprintf("all but %d", n)] = with(func(i int) []fileOp {
			if i == n {
				return nil
			}
			return f.pending[i : i+1]
		})
		out[fmt.Sprintf("only %d", n)] = apply(slices.Clone(f.synced), o)
		if o.kind != opWrite {
			continue
		}
		half, junk := o, o
		half.data = o.data[:len(o.data)/2/512*512]
		junk.data = slices.Clone(o.data)
		for i := len(half.data); i < len(junk.data); i++ {
			junk.data[i] = byte(r.Uint32())
		}
		for kind, torn := range map[string]fileOp{"torn": half, "garbled": junk} {
			out[fmt.Sprintf("%d %s", n, kind)] = with(func(i int) []fileOp {
				if i == n {
					return []fileOp{torn}
				}
				return f.pending[i : i+1]
			})
		}
	}
	return out
}

// TestAPowerFailureAtEveryFileOperationLosesNothing records what one run of the
// child does to its file, and opens every file that a power failure before each
// operation could have left: torn and garbled tails of what was not synced.
func TestAPowerFailureAtEveryFileOperationLosesNothing(t *testing.T) {
	t.Parallel()
	root, dir := memoryDir(t), t.TempDir()
	ops, _ := trace(t, dir, 0)
	r := rand.New(rand.NewPCG(1, 2))
	files, p := map[string]*image{}, newPromise()
	renamed, points, images := false, 0, 0
	for i, o := range ops {
		if o.kind == opLine {
			p.line(string(o.data))
			continue
		}
		points++
		for path, f := range files {
			for what, data := range f.crashes(r) {
				if path == filepath.Join(dir, FileName) || renamed {
					images++
					if err := restart(root, data, p); err != nil {
						t.Errorf("before operation %d (%s %s at %d) with %s of the pending: %v", i, o.kind, filepath.Base(o.path), o.offset, what, err)
					}
				}
			}
		}
		switch o.kind {
		case opRename:
			// From here on the file may be there by its name.
			files = map[string]*image{o.to: files[o.path]}
			renamed = true
		case opSync:
			if f := files[o.path]; f != nil {
				for _, done := range f.pending {
					f.synced = apply(f.synced, done)
				}
				f.pending = nil
			}
		default:
			if files[o.path] == nil {
				files[o.path] = &image{}
			}
			files[o.path].pending = append(files[o.path].pending, o)
		}
	}
	if images < 5*points || points < 3*steps() {
		t.Errorf("only %d files at %d operations: the test shows nothing", images, points)
	}
	t.Logf("CONFORMANCE C7 %d files that a power failure could leave at %d operations, unsynced pages lost, torn or garbled: 0 acknowledged writes of %d lost, every restart serves", images, points, steps())
}

// restart opens a new folder below root with nothing but such a file.
func restart(root string, data []byte, p *promise) error {
	dir, err := os.MkdirTemp(root, "")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), data, 0o600); err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	return p.check(dir)
}
