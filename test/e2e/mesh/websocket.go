// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 says so
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// Opcodes of WebSocket frames (RFC 6455 §5.2).
const (
	TextFrame   = 1
	BinaryFrame = 2
	CloseFrame  = 8
	PingFrame   = 9
	PongFrame   = 10
)

// GoingAway is the payload of a Close frame with that status code, 1001, and no reason
// (RFC 6455 §7.4.1).
const GoingAway = "\x03\xe9"

// accept is what a server makes of a key (RFC 6455 §4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see above
	return base64.StdEncoding.EncodeToString(sum[:])
}

// WebSocket is one end of a connection: frames in and out, no fragments.
type WebSocket struct {
	net.Conn
	r      *bufio.Reader
	masked bool // of what is sent: by clients
}

// DialWebSocket opens a WebSocket to a host of the mesh through an address.
func DialWebSocket(t testing.TB, address, host, path string) *WebSocket {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(startLimit))
	key := base64.StdEncoding.EncodeToString(random(16))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", path, host, key)
	ws := &WebSocket{Conn: c, r: bufio.NewReader(c), masked: true}
	resp, err := http.ReadResponse(ws.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != accept(key) {
		t.Fatalf("the handshake was answered %s %v", resp.Status, resp.Header)
	}
	return ws
}

// OverStream is the client's end of a WebSocket that was opened by other means, as
// by HTTP/2.
func OverStream(c net.Conn) *WebSocket {
	return &WebSocket{Conn: c, r: bufio.NewReader(c), masked: true}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// Send sends one frame.
func (s *WebSocket) Send(opcode byte, payload []byte) error {
	b := []byte{0x80 | opcode, 0}
	switch n := len(payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if !s.masked {
		_, err := s.Write(append(b, payload...))
		return err
	}
	b[1] |= 0x80
	mask := random(4)
	b = append(b, mask...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	_, err := s.Write(b)
	return err
}

// Receive reads one frame.
func (s *WebSocket) Receive() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	if n >= 126 {
		long := make([]byte, 2<<(2*(n-126)))
		if _, err := io.ReadFull(s.r, long); err != nil {
			return 0, nil, err
		}
		n = 0
		for _, c := range long {
			n = n<<8 | uint64(c)
		}
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(s.r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	if n > 64<<20 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(s.r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, nil
}

// Echo sends a frame and wants it back.
func (s *WebSocket) Echo(opcode byte, payload []byte) error {
	go func() { _ = s.Send(opcode, payload) }() // ends with the connection at the latest
	got, back, err := s.Receive()
	switch {
	case err != nil:
		return err
	case opcode == PingFrame && got == PongFrame:
	case got != opcode:
		return fmt.Errorf("a frame of type %d came back as %d", opcode, got)
	}
	if string(back) != string(payload) {
		return fmt.Errorf("%d bytes came back as %d others", len(payload), len(back))
	}
	return nil
}

// webSocket echoes messages, answers pings, and closes when it is asked to.
func (a *app) webSocket(w http.ResponseWriter, r *http.Request) {
	a.seen.Add(1)
	if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "upgrade")
		w.WriteHeader(http.StatusUpgradeRequired)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer func() { _ = c.Close() }()
	ws := &WebSocket{Conn: c, r: rw.Reader}
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n%s: %s\r\n\r\n",
		accept(r.Header.Get("Sec-WebSocket-Key")), InstanceHeader, a.id)
	for {
		opcode, payload, err := ws.Receive()
		if err != nil {
			return
		}
		if opcode == PingFrame {
			opcode = PongFrame
		}
		if err := ws.Send(opcode, payload); err != nil || opcode == CloseFrame {
			return
		}
	}
}
