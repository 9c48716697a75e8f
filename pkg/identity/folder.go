// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/outrigger-mesh/outrigger/pkg/statefile"
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
)

// Load reads the state; nil when there is none yet. A file that others can read or
// that is damaged is an error: an authority never starts anew in silence. It is for the
// one who saves, before the first time: what a crash within Save has left, private keys
// that were never in force among it, is removed.
func (f Folder) Load() (*State, error) {
	path := f.path(stateFile)
	for _, name := range [...]string{stateFile, bundleFile} {
		if err := statefile.RemoveLeft(f.path(name)); err != nil {
			return nil, err
		}
	}
	data, err := statefile.Read(path, maxStateBytes, "it holds private keys: chmod 600 it, and rotate if somebody may have")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
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
	if err := statefile.Replace(f.path(stateFile), data); err != nil {
		return err
	}
	roots := make([][]byte, len(s.Roots))
	for i, r := range s.Roots {
		roots[i] = r.Certificate
	}
	return statefile.Replace(f.path(bundleFile), EncodeCertificates(roots...))
}

func (f Folder) path(name string) string { return filepath.Join(string(f), name) }
