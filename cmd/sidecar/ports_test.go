// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestATakenAddressNamesTheFlagToChooseAnotherWith(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	o := Options{Service: "orders", ControlPlane: "127.0.0.1:1", App: "127.0.0.1:2", Inbound: taken, Outbound: taken}
	err = probePorts(t.Context(), &o, nil)
	for _, flag := range []string{"--inbound", "--outbound"} {
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "stop that one, or choose another address with "+flag+")") {
			t.Errorf("got %v, want the way out by %s", err, flag)
		}
	}
	if got := busyAddress("admin", syscall.EACCES).Error(); got != "--admin: permission denied" {
		t.Errorf("got %q: another fault has another way out", got)
	}
}
