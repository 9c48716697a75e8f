// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/outrigger-mesh/outrigger/pkg/controlplane/store"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// anotherVersions is a state with an object of the API that this version does not understand.
func anotherVersions(t *testing.T) *store.State {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, store.FileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	record := []byte(`{"object":{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"a"},"spec":{"ports":[{"port":80,"colour":"red"}]}}}`)
	sealed := append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli))), record...)
	if err := db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("objects")).Put([]byte("Service/a"), sealed) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(store.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestWhatIsNotUnderstoodIsInTheStatusWithItsField(t *testing.T) {
	state := anotherVersions(t)
	a := newAPI(t, func(c *Config) { c.State = state })
	var status struct {
		NotUnderstood []notUnderstood
		WarnedObjects []warnedObject
	}
	read := func() {
		t.Helper()
		status.NotUnderstood, status.WarnedObjects = nil, nil
		if err := json.Unmarshal([]byte(a.do("GET", "/v1/status", "").body), &status); err != nil {
			t.Fatal(err)
		}
	}
	const field = "spec.ports[0].colour"
	if read(); len(status.NotUnderstood) != 1 || status.NotUnderstood[0].Name != "a" || status.NotUnderstood[0].Errors[0].Path != field {
		t.Errorf("status: %+v", status)
	}
	// A file covers it.
	o, err := mesh.ParseOne([]byte(`{apiVersion: outrigger.io/v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 81}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := state.SyncFiles(t.Context(), []store.File{{Path: "x.yaml", Objects: []mesh.Object{o}}}); err != nil {
		t.Fatal(err)
	}
	const covers = "x.yaml covers the object of that name that was made by the API, which this version does not understand ("
	a.want(a.do("GET", "/v1/objects/Service/a", ""), 200, `"reason":"CoversAPI","field":"`+field+`"`, covers)
	if read(); len(status.NotUnderstood) != 0 || len(status.WarnedObjects) != 1 || len(status.WarnedObjects[0].Warnings) != 1 {
		t.Errorf("status with the file: %+v", status)
	}
	// The file goes.
	if err := state.SyncFiles(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	a.want(a.do("GET", "/v1/objects/Service/a", ""), 404)
	if read(); len(status.NotUnderstood) != 1 {
		t.Errorf("status without the file: %+v", status)
	}
}
