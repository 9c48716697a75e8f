// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/registry"
	"github.com/outrigger-mesh/outrigger/pkg/statefile"
)

// FileName is the store's file in the data folder.
const FileName = "state.db"

// Errors of a store. ErrNoSpace and ErrReadOnly leave reads working.
var (
	ErrNoSpace  = errors.New("store: no space left")
	ErrReadOnly = errors.New("store: cannot be written")
	ErrCorrupt  = errors.New("store: damaged")
	ErrInUse    = errors.New("store: in use by another process")
)

var (
	bucketMeta      = []byte("meta")
	bucketObjects   = []byte("objects")
	bucketInstances = []byte("instances")
	keyFormat       = []byte("format")
	keyRevision     = []byte("revision")
)

// formatVersion names the layout of the buckets and records.
const formatVersion = "1"

// db is the file. Records are a CRC-32C of the rest, then JSON.
type db struct {
	bolt     *bolt.DB
	path     string
	revision atomic.Uint64 // the last one given out
}

// objectRecord is an object as stored.
type objectRecord struct {
	Source string          `json:"source,omitempty"` // file that owns it, empty for the API
	Object json.RawMessage `json:"object"`
	// Covered is the API's object of that name, in force again when no file has it.
	Covered json.RawMessage `json:"covered,omitempty"`
}

// instanceRecord is an instance as stored.
type instanceRecord struct {
	Instance *mesh.Instance `json:"instance"`
	Lease    mesh.Duration  `json:"lease"`
}

// openDB opens or makes the file in dir. A new one is made beside and renamed, so
// that a file by its name is always whole: an empty one is damage.
func openDB(dir string) (d *db, err error) {
	path := filepath.Join(dir, FileName)
	defer recoverDamage(path, &err)
	if _, statErr := os.Stat(path); errors.Is(statErr, fs.ErrNotExist) {
		if err := createDB(dir, path); err != nil {
			return nil, fmt.Errorf("create store %s: %w", path, classify(err))
		}
	} else if statErr != nil {
		return nil, fmt.Errorf("open store %s: %w", path, statErr)
	}
	if info, err := os.Stat(path); err == nil && info.Size() == 0 {
		return nil, damaged(path, errors.New("the file is empty"))
	}
	b, err := bolt.Open(path, 0o600, options())
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s (is another control plane running with the same --data?)", ErrInUse, path)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("open store %s: %w (the control plane must be able to write to --data)", path, err)
	case err != nil:
		return nil, damaged(path, err)
	}
	d = &db{bolt: b, path: path}
	if err := d.checkFormat(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return d, nil
}

func options() *bolt.Options {
	return &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType}
}

func createDB(dir, path string) error {
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := bolt.Open(fresh, 0o600, options())
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketObjects, bucketInstances} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyFormat, []byte(formatVersion))
	})
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return statefile.SyncFolder(dir)
}

func damaged(path string, cause error) error {
	return fmt.Errorf("%w: %s: %v; restore it from a copy, or move it away to begin with an empty store (objects in --config and sidecars come back by themselves)", ErrCorrupt, path, cause)
}

// recoverDamage turns what bbolt does on a damaged page (a panic, or a fault on
// the mapped file) into an error.
func recoverDamage(path string, err *error) {
	if r := recover(); r != nil {
		*err = damaged(path, fmt.Errorf("%v", r))
	}
}

func (d *db) checkFormat() error {
	return d.bolt.View(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketObjects, bucketInstances} {
			if tx.Bucket(name) == nil {
				return damaged(d.path, fmt.Errorf("bucket %q is missing", name))
			}
		}
		if info, err := os.Stat(d.path); err != nil {
			return err
		} else if info.Size() < tx.Size() {
			return damaged(d.path, fmt.Errorf("it is cut off: %d bytes of %d", info.Size(), tx.Size()))
		}
		m := tx.Bucket(bucketMeta)
		if v := string(m.Get(keyFormat)); v != formatVersion {
			return fmt.Errorf("open store %s: format %q is not known to this version, which writes %q", d.path, v, formatVersion)
		}
		if v := m.Get(keyRevision); v != nil {
			if len(v) != 8 {
				return damaged(d.path, errors.New("revision is not 8 bytes"))
			}
			d.revision.Store(binary.BigEndian.Uint64(v))
		}
		return nil
	})
}

// load reads every record and so every page in use.
func (d *db) load(object func(key string, r objectRecord) error, instance func(key string, r instanceRecord) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recoverDamage(d.path, &err)
	return d.bolt.View(func(tx *bolt.Tx) error {
		if err := tx.Bucket(bucketObjects).ForEach(func(k, v []byte) error {
			var r objectRecord
			if err := unseal(v, &r); err != nil {
				return damaged(d.path, fmt.Errorf("object %q: %w", k, err))
			}
			return object(string(k), r)
		}); err != nil {
			return err
		}
		return tx.Bucket(bucketInstances).ForEach(func(k, v []byte) error {
			var r instanceRecord
			if err := unseal(v, &r); err != nil {
				return damaged(d.path, fmt.Errorf("instance %q: %w", k, err))
			}
			return instance(string(k), r)
		})
	})
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func seal(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli)), body...), nil
}

func unseal(data []byte, v any) error {
	if len(data) < 4 || binary.BigEndian.Uint32(data) != crc32.Checksum(data[4:], castagnoli) {
		return errors.New("checksum does not match")
	}
	return json.Unmarshal(data[4:], v)
}

// put is one record to write; a nil value deletes.
type put struct {
	bucket []byte
	key    string
	value  []byte
}

// NextRevision gives out the next durable revision. One that is not committed is never used again.
func (d *db) NextRevision() uint64 { return d.revision.Add(1) }

// commit writes all or nothing and returns when it is on disk.
func (d *db) commit(puts []put) error {
	err := d.bolt.Update(func(tx *bolt.Tx) error {
		for _, p := range puts {
			b := tx.Bucket(p.bucket)
			if p.value == nil {
				if err := b.Delete([]byte(p.key)); err != nil {
					return err
				}
				continue
			}
			if err := b.Put([]byte(p.key), p.value); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keyRevision, binary.BigEndian.AppendUint64(nil, d.revision.Load()))
	})
	if err != nil {
		return fmt.Errorf("write store %s: %w", d.path, classify(err))
	}
	return nil
}

// classify adds the store's own error to the operating system's.
func classify(err error) error {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		// bbolt keeps only the text of an error that it meets while the file grows.
		if errors.Is(err, e) || strings.HasSuffix(err.Error(), e.Error()) {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrReadOnly, err)
}

// CommitInstances makes registry writes durable.
func (d *db) CommitInstances(writes []registry.Write) error {
	puts := make([]put, 0, len(writes))
	for _, w := range writes {
		if w.Put == nil {
			puts = append(puts, put{bucketInstances, instanceKey(w.Delete), nil})
			continue
		}
		v, err := seal(instanceRecord{Instance: w.Put, Lease: mesh.Duration(w.Lease)})
		if err != nil {
			return fmt.Errorf("encode instance %s/%s: %w", w.Put.Service, w.Put.ID, err)
		}
		puts = append(puts, put{bucketInstances, instanceKey(mesh.InstanceKey{Service: w.Put.Service, ID: w.Put.ID}), v})
	}
	return d.commit(puts)
}

func instanceKey(k mesh.InstanceKey) string { return k.Service + "/" + k.ID }

var _ registry.Journal = (*db)(nil)
