// SPDX-License-Identifier: Apache-2.0

package freeport_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/internal/freeport"
)

func TestNoPortIsGivenTwiceAndEachIsFree(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		list, err := freeport.Addresses(50)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 50 {
			t.Fatalf("got %d addresses, want 50", len(list))
		}
		for _, a := range list {
			if seen[a] {
				t.Errorf("%s was given twice", a)
			}
			seen[a] = true
		}
		l, err := net.Listen("tcp", list[0])
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close() // the next may be anywhere
	}
}

// Packages are tested at the same time, each by a process that finds ports.
func TestTwoProcessesFindDifferentPorts(t *testing.T) {
	const child = "OUTRIGGER_FIND_PORTS"
	mine, err := freeport.Addresses(100)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(child) != "" {
		fmt.Println("ports", strings.Join(mine, " "))
		return
	}
	has := map[string]bool{}
	for _, a := range mine {
		has[a] = true
	}
	for range 20 {
		c := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		c.Env = append(os.Environ(), child+"=1")
		out, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		list := strings.Fields(string(out))
		if len(list) < 101 || list[0] != "ports" {
			t.Fatalf("another process said %q", out)
		}
		for _, a := range list[1:101] {
			if has[a] {
				t.Fatalf("another process found %s as well", a)
			}
		}
	}
}

func TestMorePortsThanThereAreIsAnError(t *testing.T) {
	if list, err := freeport.Find(20_001); err == nil {
		t.Errorf("got %d ports of a range of 20000", len(list))
	}
}
