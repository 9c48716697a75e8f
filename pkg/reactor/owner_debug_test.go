// SPDX-License-Identifier: Apache-2.0

//go:build meshdebug

package reactor_test

import (
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

func TestAForeignGoroutinePanics(t *testing.T) {
	r := kernelRig(t, "127.0.0.1:0")
	near, _ := r.pair()
	var timer reactor.Timer
	for name, verb := range map[string]func(){
		"Write":    func() { near.c.Write([]byte("x")) },
		"Reserve":  func() { near.c.Reserve(1) },
		"Close":    func() { near.c.Close(nil) },
		"Pause":    func() { near.c.Pause() },
		"Schedule": func() { r.near.Schedule(&timer, time.Second) },
		"Dial":     func() { _, _ = r.near.Dial(r.listen, reactor.DialOptions{}, near) },
		"Tick":     func() { r.near.Tick(0) },
	} {
		caught := make(chan any)
		go func() {
			defer func() { caught <- recover() }()
			verb()
		}()
		if v := <-caught; v == nil {
			t.Errorf("%s from a foreign goroutine did not panic", name)
		}
	}
}
