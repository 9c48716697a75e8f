// SPDX-License-Identifier: Apache-2.0

package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// newSuffix is of a file that is not yet in force.
const newSuffix = ".new"

// Read returns what is in the file; it is fs.ErrNotExist where there is none. A file of
// more than limit bytes is an error, and one that others can read: advice says then what to
// do about that.
func Read(path string, limit int64, advice string) ([]byte, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read by others (mode %v): %s", path, info.Mode().Perm(), advice)
	case info.Size() > limit:
		return nil, fmt.Errorf("%s: %d bytes, the limit is %d", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}

// Replace puts data into the file, with mode 0600. When it has returned nil, they survive a
// crash; otherwise what was there before is in force.
func Replace(path string, data []byte) error {
	// A left-over may have another mode, or somebody who has it open.
	if err := RemoveLeft(path); err != nil {
		return err
	}
	fresh, err := os.OpenFile(path+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = fresh.Write(data); err == nil {
		err = fresh.Sync()
	}
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+newSuffix, path); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(path))
}

// RemoveLeft removes what a crash within Replace has left, which was never in force: for
// who begins to keep the file.
func RemoveLeft(path string) error {
	if err := os.Remove(path + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("left by a crash: %w", err)
	}
	return nil
}

// SyncFolder makes the names in a folder durable.
func SyncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
