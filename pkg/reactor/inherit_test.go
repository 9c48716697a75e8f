// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// A successor that gives up must not take the files away that the process before serves on.
func TestFilesOfInheritedSocketsAreOfWhoeverOwnsThem(t *testing.T) {
	addr := reactor.Addr{Unix: filepath.Join(t.TempDir(), "in.sock")}
	first := reactor.NewSockets(nil)
	serving, err := first.Open(addr, 1, reactor.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, owns := range []bool{false, true} {
		groups, err := first.Duplicate()
		if err != nil {
			t.Fatal(err)
		}
		next := reactor.NewSockets(reactor.NewInherited(groups))
		set, err := next.Open(addr, 1, reactor.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if owns {
			next.Own()
		}
		set.Release()
		if _, err := os.Lstat(addr.Unix); errors.Is(err, os.ErrNotExist) != owns {
			t.Errorf("a successor that owns the file, %v, ended: %v", owns, err)
		}
	}
	serving.Release()
}
