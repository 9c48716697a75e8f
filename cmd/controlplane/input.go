// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

const maxInputBytes = 16 << 20

// source is one object of the command's input with where it stands.
type source struct {
	file   string
	parsed mesh.Parsed
}

// read parses the files, folders and - (standard input) that -f names. so says what
// comes of an input that is wrong.
func (c *client) read(names []string, so string) ([]source, error) {
	if len(names) == 0 {
		return nil, exitWith(exitUsage, "-f: name a file, a folder, or - for standard input")
	}
	var out []source
	var errs mesh.Errors
	add := func(name string, data []byte) {
		for _, p := range mesh.ParseEach(name, data) {
			if errs = append(errs, p.Errors...); p.Object != nil {
				out = append(out, source{name, p})
			}
		}
	}
	for _, name := range names {
		if name == "-" {
			data, err := mesh.ReadAll(c.io.in, maxInputBytes)
			if err != nil {
				return nil, exitWith(exitFailed, "standard input: %w", err)
			}
			add("-", data)
			continue
		}
		files, err := expand(name)
		if err != nil {
			return nil, exitWith(exitFailed, "%w", err)
		}
		for _, f := range files {
			data, err := readBounded(f)
			if err != nil {
				return nil, exitWith(exitFailed, "%w", err)
			}
			add(f, data)
		}
	}
	if len(errs) > 0 {
		return nil, exitWith(exitFailed, "%s in the input%s\n%w", counted(len(errs), "fault"), so, errs)
	}
	if len(out) == 0 {
		return nil, exitWith(exitFailed, "no object in %s", strings.Join(names, ", "))
	}
	// Services come before what refers to them.
	order := map[string]int{}
	for i, k := range mesh.Kinds() {
		order[k.Name] = i
	}
	slices.SortStableFunc(out, func(a, b source) int {
		return cmp.Compare(order[a.parsed.Object.Key().Kind], order[b.parsed.Object.Key().Kind])
	})
	return out, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	data, err := mesh.ReadAll(f, maxInputBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// bare is the reason alone, for messages that name the file themselves.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// expand lists the YAML and JSON files of a folder, or the file itself.
func expand(name string) ([]string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("-f %s: %w", name, bare(err))
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	var out []string
	err = filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch ext := strings.ToLower(filepath.Ext(path)); {
		case d.IsDir() && path != name && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case !d.IsDir() && !strings.HasPrefix(d.Name(), ".") && (ext == ".yaml" || ext == ".yml" || ext == ".json"):
			out = append(out, path)
		}
		return nil
	})
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("%s: no .yaml, .yml or .json file in the folder", name)
	}
	return out, err
}
