// SPDX-License-Identifier: Apache-2.0

package sessionkeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/outrigger-mesh/outrigger/pkg/statefile"
)

const (
	fileName     = "session-keys.json"
	maxFileBytes = 64 << 10
)

// load reads the file; without one the state is empty.
func load(dir string) (state, error) {
	path := filepath.Join(dir, fileName)
	data, err := statefile.Read(path, maxFileBytes, "it holds keys: remove it if somebody may have, and sessions begin anew, or chmod 600 it")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{}, nil
	case err != nil:
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
	return statefile.Replace(filepath.Join(dir, fileName), data)
}
