// SPDX-License-Identifier: Apache-2.0

package reactor_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
)

// toy is a Transport: records of a length and changed bytes, of at most 1000. Some
// lengths are messages.
type toy struct {
	part   []byte
	opened int // records
}

const (
	toyEnd    = 0xffff
	toyAsk    = 0xfffe // wants an answer
	toyAnswer = 0xfffd
	toyMax    = 1000
)

var errToy = errors.New("a broken record")

func (t *toy) Open(dst, in []byte) (plain, reply []byte, err error) {
	t.part = append(t.part, in...)
	rest := t.part
	defer func() { t.part = append(t.part[:0], rest...) }()
	for len(rest) >= 2 {
		n := int(binary.BigEndian.Uint16(rest))
		switch {
		case n == toyEnd:
			return dst, reply, io.EOF
		case n == toyAsk:
			reply, n = binary.BigEndian.AppendUint16(reply, toyAnswer), 0
		case n == toyAnswer:
			n = 0
		case n > toyMax:
			return dst, reply, errToy
		}
		if len(rest) < 2+n {
			break
		}
		for _, b := range rest[2 : 2+n] {
			dst = append(dst, b^0x55)
		}
		t.opened++
		rest = rest[2+n:]
	}
	return dst, reply, nil
}

func (t *toy) Seal(dst, plain []byte) []byte {
	for len(plain) > 0 {
		n := min(len(plain), toyMax)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
		for _, b := range plain[:n] {
			dst = append(dst, b^0x55)
		}
		plain = plain[n:]
	}
	return dst
}

func (t *toy) CloseNotify(dst []byte) []byte { return binary.BigEndian.AppendUint16(dst, toyEnd) }

// sealedPair is pair with Transports at both ends.
func (r *rig) sealedPair() (near, far *script) {
	near, far = r.pair()
	near.c.SetTransport(&toy{})
	far.c.SetTransport(&toy{})
	return near, far
}

func TestSealedBytesComeBackFromAnEcho(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.sealedPair()
		far.echo()
		total := 0
		for _, size := range []int{1, 100, 4095, 4096, 40_000, 400_000} {
			want := pattern(size)
			near.got = nil
			near.c.Write(want)
			r.until("echo", func() bool { return len(near.got) >= size })
			if !bytes.Equal(near.got, want) {
				t.Fatalf("%d bytes came back changed", size)
			}
			total += size
		}
		if near.c.ReadBytes() != uint64(total) || near.c.WrittenBytes() != uint64(total) || near.c.Buffered() != 0 {
			t.Errorf("read %d, wrote %d, buffered %d, want %d of plaintext each way", near.c.ReadBytes(), near.c.WrittenBytes(), near.c.Buffered(), total)
		}
	})
}

func TestSealedWritesLeaveInOrderBeforeTheEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.sealedPair()
		var want []byte
		for i, n := range []int{10, 5000, 1, 20_000, 0, 3, 4096, 300_000, 7} {
			b := bytes.Repeat([]byte{byte('a' + i)}, n)
			want = append(want, b...)
			if i%2 == 0 {
				near.c.Write(b)
			} else {
				near.c.Commit(append(near.c.Reserve(n), b...))
			}
			if got := near.c.WrittenBytes() + uint64(near.c.Buffered()); got != uint64(len(want)) {
				t.Fatalf("written and waiting are %d, want %d", got, len(want))
			}
		}
		near.c.CloseWrite()
		near.c.Write([]byte("after the end"))
		r.until("the end", func() bool { return far.eof })
		if !bytes.Equal(far.got, want) {
			t.Fatalf("%d bytes arrived, or another order; %d were written", len(far.got), len(want))
		}
		far.c.Write([]byte("answer")) // half-close: the other way is open
		far.c.CloseWrite()
		r.until("both closes", func() bool { return near.isClosed() && far.isClosed() })
		if string(near.got) != "answer" || near.err != nil || far.err != nil {
			t.Errorf("got %q, closes %v and %v", near.got, near.err, far.err)
		}
	})
}

func TestAnEndThatIsNotSaidIsTruncation(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.sealedPair()
		near.c.Write([]byte("half of it"))
		r.until("the bytes", func() bool { return len(far.got) == 10 })
		near.c.Close(nil)
		r.until("the close", far.isClosed)
		if !errors.Is(far.err, reactor.ErrTruncated) || far.eof {
			t.Errorf("closed with %v, EOF %v; want ErrTruncated", far.err, far.eof)
		}
	})
}

func TestCloseAfterFlushEndsInOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.sealedPair()
		near.c.Write(pattern(200_000))
		near.c.CloseAfterFlush(0)
		r.until("the end", func() bool { return far.eof || far.isClosed() })
		if !far.eof || !bytes.Equal(far.got, pattern(200_000)) {
			t.Errorf("EOF %v after %d bytes, closed with %v", far.eof, len(far.got), far.err)
		}
	})
}

func TestABrokenRecordClosesWithItsError(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.c.SetTransport(&toy{})
		near.c.Write([]byte{0, 1, 'a' ^ 0x55, 0x70, 0})
		r.until("the close", far.isClosed)
		if string(far.got) != "a" || !errors.Is(far.err, errToy) {
			t.Errorf("got %q, closed with %v", far.got, far.err)
		}
	})
}

func TestWhatIsWrittenBeforeTheTransportWaitsForIt(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		near.c.AwaitTransport()
		near.c.Write(pattern(50_000))
		near.c.WriteRaw([]byte("hello"))
		r.until("the handshake", func() bool { return len(far.got) >= 5 })
		r.settle()
		if string(far.got) != "hello" || near.c.Buffered() != 50_000 {
			t.Fatalf("%d bytes left, %d wait: %.20q", len(far.got), near.c.Buffered(), far.got)
		}
		far.got = nil
		far.c.SetTransport(&toy{})
		near.c.SetTransport(&toy{})
		r.until("what waited", func() bool { return len(far.got) >= 50_000 })
		if !bytes.Equal(far.got, pattern(50_000)) {
			t.Error("it arrived changed")
		}
	})
}

func TestWhatCameBeforeTheTransportIsItsBeginning(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.onData = func([]byte) int { return 0 }
		near.c.SetTransport(&toy{})
		near.c.Write(pattern(3000))
		near.c.CloseWrite()
		r.until("the bytes and the end", func() bool { return far.eof && far.c.Unconsumed() == 3000+3*2+2 })
		far.eof, far.onData = false, nil
		far.c.SetTransport(&toy{})
		r.until("the end", func() bool { return far.eof || far.isClosed() })
		if !bytes.Equal(far.got, pattern(3000)) || far.err != nil {
			t.Errorf("%d bytes, closed with %v", len(far.got), far.err)
		}
	})
}

func TestAPausedSealedConnectionReadsNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.sealedPair()
		far.c.Pause()
		near.c.Write(pattern(100_000))
		r.settle()
		if len(far.got) != 0 {
			t.Fatalf("%d bytes were presented", len(far.got))
		}
		far.c.Resume()
		r.until("the bytes", func() bool { return len(far.got) == 100_000 })
	})
}

func TestAnswersOfTheTransportAreBounded(t *testing.T) {
	everywhere(t, func(t *testing.T, r *rig) {
		near, far := r.pair()
		far.c.SetTransport(&toy{})
		ask := bytes.Repeat([]byte{0xff, 0xfe}, 10)
		near.c.Write(ask)
		r.until("the answers", func() bool { return len(near.got) == 20 })
		if !bytes.Equal(near.got, bytes.Repeat([]byte{0xff, 0xfd}, 10)) {
			t.Fatalf("answers %x", near.got)
		}
		near.c.Pause()
		flood := bytes.Repeat([]byte{0xff, 0xfe}, 50_000)
		r.until("the close", func() bool {
			if near.c.Buffered() < len(flood) {
				near.c.Write(flood)
			}
			return far.isClosed()
		})
		if !errors.Is(far.err, reactor.ErrStalled) {
			t.Errorf("closed with %v, want ErrStalled", far.err)
		}
	})
}

func TestSealedConnectionsAllocateNothing(t *testing.T) {
	r := kernelRig(t, "127.0.0.1:0")
	near, far := r.sealedPair()
	far.echo()
	got := 0
	near.onData = func(in []byte) int { got += len(in); return len(in) }
	b := pattern(300)
	exchange := func() {
		want := got + len(b)
		near.c.Write(b)
		for got < want {
			r.near.Tick(0)
			r.far.Tick(0)
		}
	}
	for range 10 {
		exchange()
	}
	if n := testing.AllocsPerRun(200, exchange); n != 0 {
		t.Errorf("%v allocations for an exchange", n)
	}
}
