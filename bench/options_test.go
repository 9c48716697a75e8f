// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestFlagsMayHaveOneHyphen(t *testing.T) {
	got := longFlags([]string{"-rounds", "3", "--quick", "-h", "-only=nginx", "--", "-rounds"})
	want := []string{"--rounds", "3", "--quick", "-h", "--only=nginx", "--", "-rounds"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWrongOptionsAreAllNamed(t *testing.T) {
	c := newCommand(strings.Fields("-rounds 0 -duration 1500ms -connections 0,99999 -scenarios small,big -only nginx,apache -idle-connections 1 -cluster-count 1"))
	c.SetOut(io.Discard)
	err := c.ExecuteContext(context.Background())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"--rounds: must be 1 to 1000, is 0", "--duration: must be whole seconds, is 1.5s", "--connections: must be 1 to 4096, is 0",
		"is 99999", `--scenarios: "big" is none of small, 16k`, `--only: "apache" is none of nginx, haproxy`,
		"--idle-connections: must be at least 100, is 1", "--cluster-count: must be 10 to 50000, is 1",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
}

func TestQuickKeepsWhatWasAskedFor(t *testing.T) {
	o := Options{Rounds: 7, IdleConnections: 10_000}
	o.quicken(func(name string) bool { return name == "rounds" })
	if o.Rounds != 7 || o.IdleConnections != 200 {
		t.Errorf("got %+v", o)
	}
}
