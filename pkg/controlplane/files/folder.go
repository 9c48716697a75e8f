// SPDX-License-Identifier: Apache-2.0

package files

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// Limits of a configuration folder.
const (
	MaxFileBytes = 16 << 20
	maxFiles     = 10_000
	maxDepth     = 8
)

// File is one file of the folder. Objects is nil when Errors say why.
type File struct {
	Path    string // relative to the folder, with slashes
	Objects []mesh.Object
	Errors  mesh.Errors
}

// Read reads every YAML and JSON file below a folder, in order of path. Hidden
// files and folders are left out, as the links that a mounted folder keeps its
// versions behind are hidden. The digest is equal for equal content.
func Read(dir string) (files []File, digest [sha256.Size]byte, err error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, digest, fmt.Errorf("configuration folder: %w", err)
	}
	paths, err := list(root)
	if err != nil {
		return nil, digest, fmt.Errorf("configuration folder: %w", err)
	}
	sum := sha256.New()
	for _, rel := range paths {
		f, data := readFile(root, rel)
		fmt.Fprintf(sum, "%q %x %q\n", rel, sha256.Sum256(data), f.Errors.Error())
		files = append(files, f)
	}
	sum.Sum(digest[:0])
	return files, digest, nil
}

func list(root string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != root {
				return nil // went away while the folder was read
			}
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".")
		switch {
		case d.IsDir() && (hidden || strings.Count(rel, string(filepath.Separator)) >= maxDepth):
			return filepath.SkipDir
		case d.IsDir() || hidden || !isConfig(path):
			return nil
		case len(out) == maxFiles:
			return fmt.Errorf("more than %d files", maxFiles)
		}
		out = append(out, filepath.ToSlash(rel))
		return nil
	})
	slices.Sort(out)
	return out, err
}

func isConfig(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

func readFile(root, rel string) (File, []byte) {
	f := File{Path: rel}
	data, err := readBounded(filepath.Join(root, filepath.FromSlash(rel)))
	if err != nil {
		f.Errors = mesh.Errors{{File: rel, Reason: "cannot be read: " + err.Error()}}
		return f, nil
	}
	for _, p := range mesh.ParseEach(rel, data) {
		if f.Errors = append(f.Errors, p.Errors...); p.Object != nil {
			f.Objects = append(f.Objects, p.Object)
		}
	}
	if len(f.Errors) > 0 {
		f.Objects = nil
	}
	return f, data
}

func readBounded(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // only read
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return mesh.ReadAll(in, MaxFileBytes)
}
