// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// TicketKeyBytes is the length of a configured key of session tickets.
const TicketKeyBytes = 80

const (
	ticketTurn = 4 * time.Hour
	ticketKeep = 3 // keys: tickets live 8 to 12 hours
)

// Tickets are keys of session tickets that are made in memory and rotated: who
// learns one can read the connections of some hours, and none after a restart. A
// process has one for all its contexts.
type Tickets struct {
	mu   sync.Mutex
	keys [][32]byte // the first encrypts
	made time.Time  // the first
	turn uint64
}

// current returns the keys and a number that changes with them.
func (t *Tickets) current(now time.Time) ([][32]byte, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.keys) == 0 || now.Sub(t.made) >= ticketTurn || now.Before(t.made) {
		var k [32]byte
		_, _ = rand.Read(k[:]) // never fails: crypto/rand ends the program first
		t.keys = append([][32]byte{k}, t.keys[:min(len(t.keys), ticketKeep-1)]...)
		t.made = now
		t.turn++
	}
	return t.keys, t.turn
}

// bind derives from keys those of one kind of validation: a ticket got under other
// rules opens nothing.
func bind[K []byte | [32]byte](keys []K, print []byte) [][32]byte {
	out := make([][32]byte, len(keys))
	for i, k := range keys {
		var secret []byte
		switch k := any(k).(type) {
		case []byte:
			secret = k
		case [32]byte:
			secret = k[:]
		}
		h := hmac.New(sha256.New, secret)
		h.Write(print)
		h.Sum(out[i][:0])
	}
	return out
}

// tickets loads configured keys.
func (l *loader) tickets(r *resource.DownstreamTLS) ([][]byte, error) {
	t := r.Tickets
	if r.TicketsSecret != "" {
		s, err := l.secret(r.TicketsSecret)
		if err != nil {
			return nil, err
		}
		if t = s.Tickets; t == nil {
			return nil, fmt.Errorf("secret %q is no session_ticket_keys", r.TicketsSecret)
		}
	}
	if t == nil {
		return nil, nil
	}
	var out [][]byte
	for i := range t.Keys {
		b, err := l.read(&t.Keys[i])
		if err == nil && len(b) != TicketKeyBytes {
			err = fmt.Errorf("has %d bytes, want %d", len(b), TicketKeyBytes)
		}
		if err != nil {
			return nil, fmt.Errorf("session_ticket_keys: keys[%d]: %w", i, err)
		}
		out = append(out, b)
	}
	return out, nil
}
