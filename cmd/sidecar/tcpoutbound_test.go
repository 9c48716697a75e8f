// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestATCPOutboundThatNobodyListensForIsToldOnce(t *testing.T) {
	var lines bytes.Buffer
	log := slog.New(slog.NewTextHandler(&lines, nil))
	flags := []string{"127.0.0.1:5432=db:5432", "127.0.0.1:25=mail:25"}
	var watch tcpOutbounds
	open := map[string]bool{"127.0.0.1:25": true}
	is := func(address string) bool { return open[address] }
	for _, step := range []struct {
		db   bool
		want []string // of db's lines
	}{{false, []string{"WARN"}}, {false, nil}, {true, []string{"INFO"}}, {true, nil}, {false, []string{"WARN"}}} {
		lines.Reset()
		open["127.0.0.1:5432"] = step.db
		watch.update(flags, is, log)
		got := strings.Count(lines.String(), "\n")
		if got != len(step.want) || got == 1 && (!strings.Contains(lines.String(), "level="+step.want[0]) || !strings.Contains(lines.String(), "target=db:5432")) {
			t.Errorf("%+v: %q", step, lines.String())
		}
	}
}
