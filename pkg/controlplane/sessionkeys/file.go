// SPDX-License-Identifier: Apache-2.0

package sessionkeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	fileName     = "session-keys.json"
	maxFileBytes = 64 << 10
)

// load reads the file; without one the state is empty.
func load(dir string) (state, error) {
	path := filepath.Join(dir, fileName)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{}, nil
	case err != nil:
		return state{}, err
	case !info.Mode().IsRegular():
		return state{}, fmt.Errorf("%s: is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return state{}, fmt.Errorf("%s holds keys and can be read by others (mode %v): remove it if somebody may have, and sessions begin anew, or chmod 600 it", path, info.Mode().Perm())
	case info.Size() > maxFileBytes:
		return state{}, fmt.Errorf("%s: %d bytes, the limit is %d", path, info.Size(), maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return state{}, err
	}
	var s state
	if err = json.Unmarshal(data, &s); err != nil {
		err = errors.New("is not what was written") // its text could quote the file
	} else {
		err = s.check()
	}
	if err != nil {
		return state{}, fmt.Errorf("%s: damaged: %w (restore it from a backup, or remove it, and sessions begin anew)", path, err)
	}
	return s, nil
}

// save replaces the file. When it has returned nil, the state survives a crash; otherwise
// the old one is in force.
func save(dir string, s state) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fileName)
	// A left-over may have another mode, or somebody who has it open.
	if err := removeLeft(dir); err != nil {
		return err
	}
	fresh, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = fresh.Write(data); err == nil {
		err = fresh.Sync()
	}
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// removeLeft removes what a crash within save has left: keys that were never in force.
func removeLeft(dir string) error {
	if err := os.Remove(filepath.Join(dir, fileName+".new")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("left by a crash: %w", err)
	}
	return nil
}
