// SPDX-License-Identifier: Apache-2.0

// Package buildinfo says which build a program is, from what the Go linker put
// into it. It imports nothing of ours and keeps no state.
package buildinfo

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// Info is a build. Commit, Time and Modified are empty where the program was not
// built from a checkout.
type Info struct {
	Program  string `json:"program"`
	Module   string `json:"module"`
	Version  string `json:"version"` // of the module; "devel" where it has none
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"commitTime,omitempty"` // RFC 3339
	Modified bool   `json:"modified"`             // the checkout had changes that are not committed
	Go       string `json:"go"`
	Platform string `json:"platform"` // GOOS/GOARCH
}

// Of reads the build of this process.
func Of(program string) Info {
	i := Info{Program: program, Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return i
	}
	i.Module = b.Main.Path
	if b.Main.Version != "" && b.Main.Version != "(devel)" {
		i.Version = b.Main.Version
	}
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			i.Commit = s.Value
		case "vcs.time":
			i.Time = s.Value
		case "vcs.modified":
			i.Modified = s.Value == "true"
		}
	}
	return i
}

// WriteText writes the build for people, one fact on a line.
func (i Info) WriteText(w io.Writer) error {
	commit := i.Commit
	switch {
	case commit == "":
		commit = "unknown"
	case i.Modified:
		commit += ", with changes"
	}
	if i.Time != "" {
		commit += ", " + i.Time
	}
	_, err := fmt.Fprintf(w, "%s %s\nmodule   %s\ncommit   %s\ngo       %s %s\n", i.Program, i.Version, i.Module, commit, i.Go, i.Platform)
	return err
}
