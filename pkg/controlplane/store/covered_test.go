// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
)

func TestAFileCoversTheAPIsObjectAsLongAsItHasIt(t *testing.T) {
	dir := t.TempDir()
	var s *State
	reopen := func() {
		t.Helper()
		if s != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if s, err = Open(Config{Dir: dir}); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	key := mesh.Key{Kind: mesh.KindService, Name: "a"}
	put := func(port string) uint64 {
		t.Helper()
		r, err := s.PutObject(t.Context(), service(t, "a", port), registry.Match{})
		if err != nil {
			t.Fatal(err)
		}
		return r.Object.Head().Metadata.Revision
	}
	sync := func(files ...File) {
		t.Helper()
		if err := s.SyncFiles(t.Context(), files); err != nil {
			t.Fatal(err)
		}
	}
	is := func(port uint16, source string, covers bool) {
		t.Helper()
		svc := s.Model().Services["a"]
		got, faults := s.Covers(key)
		if svc == nil || svc.Spec.Ports[0].Port != port || s.Source(key) != source || got != covers || faults != nil {
			t.Errorf("got %+v of %q, covers %v (%v), want port %d of %q, %v", svc, s.Source(key), got, faults, port, source, covers)
		}
	}
	message := func() string {
		list, _, _ := s.Events().After(s.Events().Last()-1, 1)
		return list[0].Type + " " + list[0].Message
	}
	first := put("80")
	sync(File{Path: "x.yaml", Objects: []mesh.Object{service(t, "a", "81")}})
	is(81, "x.yaml", true)
	if got := message(); !strings.HasPrefix(got, "put it covers the object that was made by the API") {
		t.Errorf("event: %s", got)
	}
	var owned *OwnedError
	if _, err := s.PutObject(t.Context(), service(t, "a", "99"), registry.Match{}); !errors.As(err, &owned) {
		t.Errorf("the API's write: %v", err)
	}
	reopen()
	is(81, "x.yaml", true)
	// It moves to another file, which changes it, then turns bad.
	sync(File{Path: "y.yaml", Objects: []mesh.Object{service(t, "a", "82")}})
	is(82, "y.yaml", true)
	sync(File{Path: "y.yaml", Errors: mesh.Errors{{File: "y.yaml", Reason: "bad"}}})
	is(82, "y.yaml", true)
	reopen()
	sync()
	is(80, "", false)
	if got := message(); got != "put the file y.yaml no longer has it: the object that was made by the API is in force again" {
		t.Errorf("event: %s", got)
	}
	if now := s.Model().Object(key).Head().Metadata.Revision; now <= first {
		t.Errorf("revision %d, want a newer one than %d", now, first)
	}
	reopen()
	is(80, "", false)
	put("83")
	is(83, "", false)
	// What only a file has goes with it.
	sync(File{Path: "z.yaml", Objects: []mesh.Object{service(t, "b", "80")}})
	sync()
	if s.Model().Services["b"] != nil {
		t.Error("a file's own object stays without it")
	}
}

// otherVersion is an object of the API, as a version has stored it that knows a field more.
const otherVersion = `{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80}],"colour":"red <&>"}}`

// records are what is stored of objects, by key.
func records(t *testing.T, dir string) map[string]objectRecord {
	t.Helper()
	d, err := openDB(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]objectRecord{}
	err = d.load(func(key string, r objectRecord) error { out[key] = r; return nil }, func(string, instanceRecord) error { return nil })
	if err := errors.Join(err, d.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

// written is a data folder with one object, as it is given.
func written(t *testing.T, r objectRecord) string {
	t.Helper()
	dir := t.TempDir()
	d, err := openDB(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := seal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.commit([]put{{bucketObjects, "Service/a", v}}), d.bolt.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWhatAFileCoversStaysAsItIsThoughItIsNotUnderstood(t *testing.T) {
	var plain bytes.Buffer // as the store writes it
	json.HTMLEscape(&plain, []byte(otherVersion))
	raw := json.RawMessage(plain.String())
	key := mesh.Key{Kind: mesh.KindService, Name: "a"}
	file := func(port string) File {
		return File{Path: "x.yaml", Objects: []mesh.Object{service(t, "a", port)}}
	}
	encoded, err := EncodeObject(service(t, "a", "81"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		stored objectRecord
	}{
		{"the API's that a file is to cover", objectRecord{Object: raw}},
		{"the API's below a file's", objectRecord{Source: "x.yaml", Object: encoded, Covered: raw}},
		{"both", objectRecord{Source: "x.yaml", Object: raw, Covered: raw}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			dir := written(t, c.stored)
			for _, port := range []string{"81", "82"} { // and once more after a restart
				log.Reset()
				s, err := Open(Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.SyncFiles(t.Context(), []File{file(port)}); err != nil {
					t.Fatal(err)
				}
				svc := s.Model().Services["a"]
				covers, faults := s.Covers(key)
				if svc == nil || fmt.Sprint(svc.Spec.Ports[0].Port) != port || !covers || len(faults) != 1 || faults[0].Path != "spec.colour" || len(s.NotUnderstood()) != 0 {
					t.Errorf("%+v in force, covers %v (%v), not understood %v", svc, covers, faults, s.NotUnderstood())
				}
				if text := log.String(); !strings.Contains(text, "object=Service/a file=x.yaml") || !strings.Contains(text, "spec.colour") {
					t.Errorf("log: %s", text)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if got := records(t, dir)["Service/a"]; !bytes.Equal(got.Covered, raw) || got.Source != "x.yaml" {
					t.Errorf("stored: %s of %q covers %s", got.Object, got.Source, got.Covered)
				}
			}
			// The file goes: what it covered is in the store as it was, and nothing in force.
			s := open(t, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			log.Reset()
			if err := s.SyncFiles(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			covers, _ := s.Covers(key)
			if s.Model().Services["a"] != nil || s.Source(key) != "" || covers || len(s.NotUnderstood()[key]) != 1 {
				t.Errorf("without the file: %+v in force of %q, covers %v, not understood %v", s.Model().Services["a"], s.Source(key), covers, s.NotUnderstood())
			}
			if text := log.String(); !strings.Contains(text, "object=Service/a file=x.yaml") || !strings.Contains(text, "spec.colour") {
				t.Errorf("log without the file: %s", text)
			}
			list, _, _ := s.Events().After(s.Events().Last()-2, 2)
			if list[0].Type != EventDelete || list[1].Type != EventRejected || !strings.HasPrefix(list[1].Message, "the file x.yaml no longer has it: ") {
				t.Errorf("events: %+v", list)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if got := records(t, dir)["Service/a"]; !bytes.Equal(got.Object, raw) || got.Source != "" || got.Covered != nil {
				t.Errorf("stored: %s of %q covers %s", got.Object, got.Source, got.Covered)
			}
		})
	}
}

func TestAnObjectThatIsNotUnderstoodCanBeReplacedAndDeleted(t *testing.T) {
	key := mesh.Key{Kind: mesh.KindService, Name: "a"}
	for _, c := range []struct {
		name string
		do   func(s *State) error
		in   int // force, afterwards
	}{
		{"replaced", func(s *State) error {
			_, err := s.PutObject(t.Context(), service(t, "a", "80"), registry.Match{})
			return err
		}, 1},
		{"deleted", func(s *State) error { _, err := s.DeleteObject(t.Context(), key, registry.Match{}); return err }, 0},
	} {
		dir := written(t, objectRecord{Object: json.RawMessage(otherVersion)})
		s := open(t, Config{Dir: dir})
		if len(s.NotUnderstood()) != 1 || s.Model().Services["a"] != nil {
			t.Errorf("%s: not understood at first: %v", c.name, s.NotUnderstood())
		}
		if err := c.do(s); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := len(s.Model().Services); got != c.in || len(s.NotUnderstood()) != 0 {
			t.Errorf("%s: %d in force, not understood %v", c.name, got, s.NotUnderstood())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := len(records(t, dir)); got != c.in {
			t.Errorf("%s: %d are stored", c.name, got)
		}
	}
}

// What a file had and is not understood goes with the file; what it covered is back in force.
func TestWhatAFileHadGoesWithItThoughItIsNotUnderstood(t *testing.T) {
	covered, err := EncodeObject(service(t, "a", "80"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		covered json.RawMessage
		in      int // the store and in force, afterwards
	}{{"alone", nil, 0}, {"over the API's", covered, 1}} {
		dir := written(t, objectRecord{Source: "x.yaml", Object: json.RawMessage(otherVersion), Covered: c.covered})
		s := open(t, Config{Dir: dir})
		if err := s.SyncFiles(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := len(s.Model().Services); got != c.in || len(s.NotUnderstood()) != 0 {
			t.Errorf("%s: %d in force, not understood %v", c.name, got, s.NotUnderstood())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := records(t, dir); len(got) != c.in || got["Service/a"].Source != "" {
			t.Errorf("%s: stored %v", c.name, got)
		}
	}
}

// Of two synchronizations in one batch, the second must not take what the first gave back.
func TestTwoSynchronizationsInABatchGiveBackOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		stored objectRecord
		in     int // force, afterwards
	}{
		{"understood", objectRecord{Object: json.RawMessage(`{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80}]}}`)}, 1},
		{"not understood", objectRecord{Object: json.RawMessage(otherVersion)}, 0},
	} {
		dir := written(t, c.stored)
		s := open(t, Config{Dir: dir})
		if err := s.SyncFiles(t.Context(), []File{{Path: "x.yaml", Objects: []mesh.Object{service(t, "a", "81")}}}); err != nil {
			t.Fatal(err)
		}
		s.process([]*objectOp{{sync: true, done: make(chan struct{})}, {sync: true, done: make(chan struct{})}}) // its writer has nothing to do
		if got := len(s.Model().Services); got != c.in {
			t.Errorf("%s: %d in force", c.name, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := records(t, dir); len(got) != 1 || got["Service/a"].Source != "" {
			t.Errorf("%s: stored %v", c.name, got)
		}
	}
}
