// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Version is that of the protocol. Processes of different versions do not hand over: a
// change that an older reader would misunderstand raises it.
const Version = 2

// Bounds of a message. The kernel takes at most 253 descriptors with one (SCM_MAX_FD).
const (
	MaxMessage = 64 << 10
	MaxFiles   = 128
)

// Kind is what a message says.
type Kind string

// The kinds, in the order of a hand-over.
const (
	Hello   Kind = "hello"
	Refused Kind = "refused"
	Sockets Kind = "sockets"
	Ready   Kind = "ready"
	Go      Kind = "go"
	Serving Kind = "serving"
	Agreed  Kind = "agreed"
	Counts  Kind = "counters"
	Conns   Kind = "connections"
	Done    Kind = "done"
)

// Message is one packet. Which fields count depends on the kind.
type Message struct {
	Kind    Kind `json:"kind"`
	Version int  `json:"version,omitempty"` // of Hello

	Node   string `json:"node,omitempty"`   // of Hello: whose sockets are wanted
	Build  string `json:"build,omitempty"`  // of Hello, for the log
	PID    int    `json:"pid,omitempty"`    // of Hello, for the log
	Reason string `json:"reason,omitempty"` // of Refused

	// Of Sockets: one for each descriptor of the packet, in its order. More says that
	// another packet of them follows, as it does of Counts.
	Sockets []Socket `json:"sockets,omitempty"`
	More    bool     `json:"more,omitempty"`
	Epoch   int      `json:"epoch,omitempty"` // of the parent: how many were before it

	// Of Serving: the listeners whose connections are wanted.
	Listeners []string `json:"listeners,omitempty"`

	// Of Conns: one for each descriptor of the packet, in its order.
	Conns []Conn `json:"connections,omitempty"`

	// Of Hello: the successor wants counters. Of Agreed: they come before anything else.
	// Processes that know nothing of counters neither ask nor give.
	Counted bool `json:"counted,omitempty"`
	// Of Counts: counters by name, the values since the first of all processes.
	Counters map[string]uint64 `json:"counters,omitempty"`
}

// Use is what a listening socket is for.
type Use string

// The uses.
const (
	UseListener  Use = "listener"
	UseAdmin     Use = "admin"
	UseDNSStream Use = "dns-stream"
	UseDNSPacket Use = "dns-packet"
)

// Socket is a listening socket.
type Socket struct {
	Use     Use    `json:"use"`
	Address string `json:"address"` // as the user of it writes it
}

// Conn is an idle connection of HTTP/1.1.
type Conn struct {
	Listener   string         `json:"listener"`
	Remote     netip.AddrPort `json:"remote,omitzero"`     // of the socket
	ToldLocal  netip.AddrPort `json:"toldLocal,omitzero"`  // by a redirection or a PROXY header
	ToldRemote netip.AddrPort `json:"toldRemote,omitzero"` // by a PROXY header
	Requests   uint32         `json:"requests,omitempty"`  // that came so far
	Age        time.Duration  `json:"age,omitempty"`       // since it was accepted
	Idle       time.Duration  `json:"idle,omitempty"`      // since its last request
}

// maxAge bounds the times of a connection: more is no age.
const maxAge = 10 * 365 * 24 * time.Hour

// Decode reads a message that came with so many descriptors. The error says what is
// wrong with it.
func Decode(b []byte, files int) (*Message, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("a message of %d bytes, at most %d are allowed", len(b), MaxMessage)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	m := &Message{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	if d.More() {
		return nil, errors.New("message: something follows it")
	}
	return m, m.check(files)
}

// Encode writes a message, and refuses one that Decode would.
func (m *Message) Encode(files int) ([]byte, error) {
	if err := m.check(files); err != nil {
		return nil, err
	}
	b, err := json.Marshal(m)
	if err == nil && len(b) > MaxMessage {
		err = fmt.Errorf("%s: %d bytes, at most %d are allowed", m.Kind, len(b), MaxMessage)
	}
	return b, err
}

func (m *Message) check(files int) error {
	if files > MaxFiles {
		return fmt.Errorf("%s: %d descriptors, at most %d are allowed", m.Kind, files, MaxFiles)
	}
	wanted := 0
	switch m.Kind {
	case Hello, Refused, Ready, Serving, Agreed, Counts, Done:
	case Go:
		wanted = min(files, 1) // the lock, where there is a data folder
	case Sockets:
		wanted = len(m.Sockets)
		if m.Epoch < 0 {
			return fmt.Errorf("epoch: %d", m.Epoch)
		}
		for i, s := range m.Sockets {
			if s.Address == "" {
				return fmt.Errorf("sockets[%d]: address: required", i)
			}
		}
	case Conns:
		wanted = len(m.Conns)
		for i := range m.Conns {
			if err := m.Conns[i].check(); err != nil {
				return fmt.Errorf("connections[%d]: %w", i, err)
			}
		}
	default:
		return fmt.Errorf("kind %q is none of version %d", m.Kind, Version)
	}
	if files != wanted {
		return fmt.Errorf("%s: %d descriptors for %d entries", m.Kind, files, wanted)
	}
	return nil
}

func (c *Conn) check() error {
	switch {
	case c.Listener == "":
		return errors.New("listener: required")
	case c.Age < 0 || c.Age > maxAge:
		return fmt.Errorf("age: %v is none", c.Age)
	case c.Idle < 0 || c.Idle > c.Age:
		return fmt.Errorf("idle: %v of an age of %v", c.Idle, c.Age)
	}
	return nil
}
