// SPDX-License-Identifier: Apache-2.0

//go:build meshdebug

package reactor

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
)

// ownerChecked: this is a -tags meshdebug build.
const ownerChecked = true

// owner is the goroutine that ticks the loop. Before the first tick a loop has
// none, so that it can be set up from anywhere.
type owner struct{ goroutine atomic.Uint64 }

func (o *owner) claim() {
	id := goroutineID()
	if !o.goroutine.CompareAndSwap(0, id) && o.goroutine.Load() != id {
		panic(fmt.Sprintf("reactor: goroutine %d ticks the loop of goroutine %d", id, o.goroutine.Load()))
	}
}

func (o *owner) check() {
	if was := o.goroutine.Load(); was != 0 && was != goroutineID() {
		panic(fmt.Sprintf("reactor: goroutine %d touches the loop of goroutine %d; use PostOffLoop", goroutineID(), was))
	}
}

func goroutineID() uint64 {
	var buf [64]byte
	s := bytes.TrimPrefix(buf[:runtime.Stack(buf[:], false)], []byte("goroutine "))
	s, _, _ = bytes.Cut(s, []byte(" "))
	id, err := strconv.ParseUint(string(s), 10, 64)
	if err != nil {
		panic("reactor: goroutine id: " + err.Error())
	}
	return id
}
