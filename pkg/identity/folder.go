// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Folder keeps the state of an authority in a folder of mode 0700: authority.json,
// mode 0600, which holds the private keys and is replaced whole, and bundle.pem,
// which is for others to copy.
//
// The store of objects would do for durability, but it is read by more parts, and
// backed up and shown more freely, than keys should be.
type Folder string

const (
	stateFile  = "authority.json"
	bundleFile = "bundle.pem"
	// maxStateBytes is far above what the roots of a mesh take.
	maxStateBytes = 1 << 20
	// newSuffix is of a file that is not yet in force.
	newSuffix = ".new"
)

// Load reads the state; nil when there is none yet. A file that others can read or
// that is damaged is an error: an authority never starts anew in silence. It is for the
// one who saves, before the first time: what a crash within Save has left, private keys
// that were never in force among it, is removed.
func (f Folder) Load() (*State, error) {
	path := filepath.Join(string(f), stateFile)
	for _, name := range [...]string{stateFile, bundleFile} {
		if err := os.Remove(filepath.Join(string(f), name+newSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("left by a crash: %w", err)
		}
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s holds private keys and can be read by others (mode %v): chmod 600 it, and rotate if somebody may have", path, info.Mode().Perm())
	case info.Size() > maxStateBytes:
		return nil, fmt.Errorf("%s: %d bytes, the limit is %d", path, info.Size(), maxStateBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := DecodeState(data)
	if err != nil {
		return nil, fmt.Errorf("%s: damaged: %w (restore it from a backup, or remove the folder and with it every identity)", path, err)
	}
	return s, nil
}

// Save replaces the state. When it has returned nil, the state survives a crash;
// otherwise the old one is in force.
func (f Folder) Save(s State) error {
	data, err := EncodeState(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	if err := f.replace(stateFile, data); err != nil {
		return err
	}
	roots := make([][]byte, len(s.Roots))
	for i, r := range s.Roots {
		roots[i] = r.Certificate
	}
	return f.replace(bundleFile, EncodeCertificates(roots...))
}

// replace writes beside, makes it durable, and renames.
func (f Folder) replace(name string, data []byte) error {
	path := filepath.Join(string(f), name)
	fresh, err := os.OpenFile(path+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fresh.Write(data)
	if err == nil {
		err = fresh.Chmod(0o600) // a left-over may have had another
	}
	if err == nil {
		err = fresh.Sync()
	}
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+newSuffix, path); err != nil {
		return err
	}
	folder, err := os.Open(string(f))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
