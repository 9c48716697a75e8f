// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
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
		if svc == nil || svc.Spec.Ports[0].Port != port || s.Source(key) != source || s.Covers(key) != covers {
			t.Errorf("got %+v of %q, covers %v, want port %d of %q, %v", svc, s.Source(key), s.Covers(key), port, source, covers)
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
