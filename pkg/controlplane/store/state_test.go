// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirEnv); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, c Config) *State {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func parse(t *testing.T, text string) mesh.Object {
	t.Helper()
	o, err := mesh.ParseOne([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func service(t *testing.T, name string, port string) mesh.Object {
	t.Helper()
	return parse(t, `{apiVersion: outrigger.io/v1, kind: Service, metadata: {name: `+name+`}, spec: {ports: [{port: `+port+`}]}}`)
}

func inst(service, id string) mesh.Instance {
	return mesh.Instance{Service: service, ID: id, Address: "10.0.0.1", Port: 80}
}

func TestWhatIsStoredIsThereAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	r, err := s.PutObject(ctx, service(t, "a", "80"), registry.Match{})
	if err != nil || !r.Created || !r.Changed {
		t.Fatalf("put: %+v %v", r, err)
	}
	if _, _, err := s.Registry().Register(ctx, inst("b", "1"), 0, registry.Match{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutObject(ctx, service(t, "gone", "80"), registry.Match{}); err != nil {
		t.Fatal(err)
	}
	last, err := s.DeleteObject(ctx, mesh.Key{Kind: "Service", Name: "gone"}, registry.Match{})
	if err != nil {
		t.Fatal(err)
	}
	created := r.Object.Head().Metadata.CreatedAt
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, Config{Dir: dir})
	m := s.Model()
	a := m.Object(mesh.Key{Kind: "Service", Name: "a"})
	if a == nil || a.Head().Metadata.Revision != r.Object.Head().Metadata.Revision || !a.Head().Metadata.CreatedAt.Equal(created) {
		t.Errorf("object: %+v", a)
	}
	if m.Instance(mesh.InstanceKey{Service: "b", ID: "1"}) == nil {
		t.Error("the instance is gone")
	}
	if m.Object(mesh.Key{Kind: "Service", Name: "gone"}) != nil {
		t.Error("what was deleted came back")
	}
	next, err := s.PutObject(ctx, service(t, "c", "80"), registry.Match{})
	if err != nil || next.Object.Head().Metadata.Revision <= last {
		t.Errorf("revisions go on: got %d after %d, %v", next.Object.Head().Metadata.Revision, last, err)
	}
}

func TestAnUnchangedObjectKeepsItsRevision(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	ctx := t.Context()
	first, err := s.PutObject(ctx, service(t, "a", "80"), registry.Match{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.PutObject(ctx, service(t, "a", "80"), registry.Match{})
	if err != nil || again.Changed || again.Object.Head().Metadata.Revision != first.Object.Head().Metadata.Revision {
		t.Errorf("again: %+v %v", again, err)
	}
	changed, err := s.PutObject(ctx, service(t, "a", "81"), registry.Match{Revision: 1})
	if err != nil || !changed.Changed || changed.Created {
		t.Errorf("changed: %+v %v", changed, err)
	}
	var re *registry.RevisionError
	if _, err := s.PutObject(ctx, service(t, "a", "82"), registry.Match{Revision: 1}); !errors.As(err, &re) || re.Current != 2 {
		t.Errorf("old revision: %v", err)
	}
}

func TestACheckThatFailsStoresNothing(t *testing.T) {
	refuse := func(m *mesh.Model, o mesh.Object) error {
		if m.Object(o.Key()) != o {
			t.Error("the model that is checked does not hold the object")
		}
		return &mesh.FieldError{Path: "spec.ports[0]", Reason: "no"}
	}
	s := open(t, Config{Dir: t.TempDir(), Check: refuse})
	_, err := s.PutObject(t.Context(), service(t, "a", "80"), registry.Match{})
	var list mesh.Errors
	if !errors.As(err, &list) || list[0].Path != "spec.ports[0]" {
		t.Errorf("got %v", err)
	}
	if len(s.Model().Objects) != 0 || s.Model().Revision != 0 {
		t.Errorf("model: %+v", s.Model())
	}
}

func TestASubscriberGetsTheLatestAndNeverBlocksAWriter(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	changes, cancel := s.Subscribe()
	defer cancel()
	if got := <-changes; got != 0 {
		t.Errorf("first: got %d, want the current revision 0", got)
	}
	for _, port := range []string{"80", "81", "82"} {
		if _, err := s.PutObject(t.Context(), service(t, "a", port), registry.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-changes; got != 3 {
		t.Errorf("got %d, want the latest, 3", got)
	}
	cancel()
	if _, err := s.PutObject(t.Context(), service(t, "a", "83"), registry.Match{}); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-changes:
		t.Errorf("after cancel: got %d", got)
	default:
	}
}

func TestFilesOwnTheirObjects(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	ctx := t.Context()
	sync := func(files ...File) {
		t.Helper()
		if err := s.SyncFiles(ctx, files); err != nil {
			t.Fatal(err)
		}
	}
	has := func(names ...string) {
		t.Helper()
		var got []string
		got = append(got, s.Model().ServiceNames()...)
		if strings.Join(got, " ") != strings.Join(names, " ") {
			t.Errorf("services: got %v, want %v", got, names)
		}
	}
	if _, err := s.PutObject(ctx, service(t, "api", "80"), registry.Match{}); err != nil {
		t.Fatal(err)
	}
	sync(File{Path: "x.yaml", Objects: []mesh.Object{service(t, "a", "80"), service(t, "b", "80")}}, File{Path: "y.yaml", Objects: []mesh.Object{service(t, "c", "80")}})
	has("a", "api", "b", "c")

	var owned *OwnedError
	if _, err := s.PutObject(ctx, service(t, "a", "81"), registry.Match{}); !errors.As(err, &owned) || owned.File != "x.yaml" {
		t.Errorf("write to a file's object: %v", err)
	}
	if _, err := s.DeleteObject(ctx, mesh.Key{Kind: "Service", Name: "a"}, registry.Match{}); !errors.As(err, &owned) {
		t.Errorf("delete of a file's object: %v", err)
	}

	// x turns bad: what it held stays; y goes.
	sync(File{Path: "x.yaml", Errors: mesh.Errors{{File: "x.yaml", Line: 3, Reason: "bad"}}})
	has("a", "api", "b")
	if faults := s.FileFaults(); len(faults) != 1 || faults["x.yaml"][0].Line != 3 {
		t.Errorf("faults: %v", faults)
	}

	// x is good again without b, and claims what z has too: the first file wins.
	sync(File{Path: "x.yaml", Objects: []mesh.Object{service(t, "a", "80")}}, File{Path: "z.yaml", Objects: []mesh.Object{service(t, "a", "99"), service(t, "d", "80")}})
	has("a", "api", "d")
	if p := s.Model().Services["a"].Spec.Ports[0].Port; p != 80 {
		t.Errorf("port: got %d, want the first file's 80", p)
	}
	if faults := s.FileFaults(); len(faults) != 1 || !strings.Contains(faults["z.yaml"].Error(), "is in x.yaml too") {
		t.Errorf("faults: %v", faults)
	}

	sync()
	has("api")
	var types []string
	list, _, _ := s.Events().After(0, 100)
	for _, e := range list {
		if e.Kind == "File" {
			types = append(types, e.Type+" "+e.Name)
		}
	}
	want := "rejected x.yaml, rejected z.yaml, restored x.yaml, restored z.yaml"
	if got := strings.Join(types, ", "); got != want {
		t.Errorf("events: got %s, want %s", got, want)
	}
}

func TestABadFileKeepsItsObjectsAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SyncFiles(t.Context(), []File{{Path: "x.yaml", Objects: []mesh.Object{service(t, "a", "80")}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Dir: dir})
	if err := s.SyncFiles(t.Context(), []File{{Path: "x.yaml", Errors: mesh.Errors{{Reason: "bad"}}}}); err != nil {
		t.Fatal(err)
	}
	if s.Model().Services["a"] == nil {
		t.Error("the last good object is gone")
	}
}

func TestADamagedStoreIsAnErrorThatSaysWhatToDo(t *testing.T) {
	fill := func(t *testing.T) (dir, path string) {
		dir = t.TempDir()
		s, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []string{"a", "b", "c"} {
			if _, err := s.PutObject(t.Context(), service(t, n, "80"), registry.Match{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return dir, filepath.Join(dir, FileName)
	}
	edit := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cases := []struct {
		name string
		do   func(*testing.T, string)
	}{
		{"empty", edit(func([]byte) []byte { return nil })},
		{"noise", edit(func(d []byte) []byte {
			for i := range d {
				d[i] = byte(i * 31)
			}
			return d
		})},
		{"cut to one page", edit(func(d []byte) []byte { return d[:4096] })},
		{"cut in the middle", edit(func(d []byte) []byte { return d[:len(d)/2] })},
		{"a record's byte flipped", edit(func(d []byte) []byte {
			return bytes.ReplaceAll(d, []byte(`"Service"`), []byte(`"service"`))
		})},
		{"data pages zeroed", edit(func(d []byte) []byte { clear(d[2*os.Getpagesize():]); return d })},
		{"text", edit(func([]byte) []byte { return []byte("not a store") })},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir, path := fill(t)
			c.do(t, path)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(Config{Dir: dir})
			if err == nil {
				_ = s.Close() // the test has failed already
				t.Fatalf("opened with %d services", len(s.Model().Services))
			}
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("error: %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
				t.Errorf("the damaged file was changed: %v", err)
			}
		})
	}
}

func TestASecondProcessIsRefusedTheStore(t *testing.T) {
	dir := t.TempDir()
	open(t, Config{Dir: dir})
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "another control plane") {
		t.Errorf("got %v", err)
	}
}

func TestAnObjectOfAnotherVersionIsOutOfForceAndNotLost(t *testing.T) {
	dir := t.TempDir()
	d, err := openDB(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := seal(objectRecord{Object: []byte(`{"apiVersion":"outrigger.io/v9","kind":"Service","metadata":{"name":"new"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.commit([]put{{bucketObjects, "Service/new", v}}), d.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{Dir: dir})
	if len(s.Model().Objects) != 0 {
		t.Error("it is in force")
	}
	if list, _, _ := s.Events().After(0, 10); len(list) != 1 || list[0].Type != EventRejected {
		t.Errorf("events: %+v", list)
	}
	kept := 0
	if err := s.db.load(func(string, objectRecord) error { kept++; return nil }, func(string, instanceRecord) error { return nil }); err != nil || kept != 1 {
		t.Errorf("kept: got %d, %v", kept, err)
	}
}

func TestAReaderThatFellBehindNoticesIt(t *testing.T) {
	e := newEvents()
	for range eventLimit + 10 {
		e.add(Event{})
	}
	list, missed, _ := e.After(5, 1)
	if !missed || list[0].Sequence != 11 {
		t.Errorf("got missed %v and sequence %d, want true and 11", missed, list[0].Sequence)
	}
	if _, missed, _ := e.After(10, 1); missed {
		t.Error("nothing was missed")
	}
	_, _, more := e.After(e.Last(), 1)
	go e.add(Event{Name: "x"})
	select {
	case <-more:
	case <-time.After(10 * time.Second):
		t.Error("not woken")
	}
}

func TestAClosedStateAnswers(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutObject(context.Background(), service(t, "a", "80"), registry.Match{}); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}
