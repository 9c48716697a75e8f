// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"context"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
)

// answering answers each request when it is complete.
type answering struct {
	recorder
	out []byte
}

func (a *answering) answer(id uint32) {
	h := &codec.ResponseHead{Status: 200, BodyLength: 5}
	a.out = a.conn.AppendResponse(a.out, id, h, false)
	a.out = a.conn.AppendData(a.out, id, []byte("hello"), true)
}

func (a *answering) RequestHead(id uint32, _ *codec.RequestHead, last bool) error {
	if last {
		a.answer(id)
	}
	return nil
}

func (a *answering) Data(id uint32, b []byte, last bool) error {
	a.conn.Consumed(id, len(b))
	if last {
		a.answer(id)
	}
	return nil
}

func (a *answering) Trailer(id uint32, _ *codec.Header) error {
	a.answer(id)
	return nil
}

// answerAll serves one connection until either side ends it.
func answerAll(conn net.Conn) {
	defer conn.Close()
	c := New(Server, Limits{})
	a := &answering{recorder: recorder{conn: c}}
	var kept []byte
	buf := make([]byte, 64<<10)
	for {
		a.out = c.AppendPending(a.out)
		if _, err := conn.Write(a.out); err != nil || c.Err() != nil {
			return
		}
		a.out = a.out[:0]
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		kept = append(kept, buf[:n]...)
		n, _ = c.Decode(kept, time.Now().UnixNano(), a)
		kept = append(kept[:0], kept[n:]...)
	}
}

// TestH2specFindsNothing runs h2spec in strict mode where it is installed.
func TestH2specFindsNothing(t *testing.T) {
	program, err := exec.LookPath("h2spec")
	if err != nil {
		t.Skip("h2spec is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { answerAll(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wait.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	port := l.Addr().(*net.TCPAddr).Port
	out, err := exec.CommandContext(ctx, program, "--strict", "--timeout", "2", "-h", "127.0.0.1", "-p", strconv.Itoa(port)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 0 failed") {
		t.Errorf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	t.Log(lines[len(lines)-1])
}
