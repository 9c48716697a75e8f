// SPDX-License-Identifier: Apache-2.0

package reactor

import (
	"bytes"
	"testing"
)

// A head and the piece of a body behind it are one buffer, whichever way they came,
// and what is more than a chunk stays whole.
func TestASmallChunkGrowsForWhatFollows(t *testing.T) {
	for _, c := range []struct{ first, then, chunks, size int }{
		{300, 100, 1, smallChunk},
		{300, smallChunk - 300, 1, smallChunk},
		{300, smallChunk, 1, chunkSize},
		{300, chunkSize - 300, 1, chunkSize},
		{300, chunkSize, 2, smallChunk}, // beyond one: no copy is worth it
		{smallChunk + 1, 100, 1, chunkSize},
	} {
		l, err := NewLoop(Config{})
		if err != nil {
			t.Fatal(err)
		}
		for name, add := range map[string]func(*Conn, []byte){
			"queue":  l.queue,
			"commit": func(c *Conn, b []byte) { c.Commit(append(c.Reserve(len(b)), b...)) },
		} {
			conn := &Conn{loop: l, state: connecting, high: 1 << 20}
			want := numbers(c.first + c.then)
			add(conn, want[:c.first])
			add(conn, want[c.first:])
			var got []byte
			n := 0
			for k := conn.out; k != nil; k = k.next {
				got = append(got, k.data[k.r:k.w]...)
				n++
			}
			if !bytes.Equal(got, want) || conn.waiting != len(want) {
				t.Errorf("%s, %+v: other bytes", name, c)
			}
			if n != c.chunks || len(conn.out.data) != c.size {
				t.Errorf("%s, %+v: %d chunks, the first of %d bytes", name, c, n, len(conn.out.data))
			}
		}
		l.StopOffLoop()
		_ = l.Run()
	}
}
