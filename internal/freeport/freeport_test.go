// SPDX-License-Identifier: Apache-2.0

package freeport_test

import (
	"net"
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

func TestMorePortsThanThereAreIsAnError(t *testing.T) {
	if list, err := freeport.Find(20_001); err == nil {
		t.Errorf("got %d ports of a range of 20000", len(list))
	}
}
