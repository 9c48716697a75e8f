// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// Resolvers reads the resolvers of a resolv.conf (resolv.conf(5)): at most three,
// in their order.
func Resolvers(path string) ([]netip.AddrPort, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []netip.AddrPort
	s := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for s.Scan() && len(out) < 3 {
		words := strings.Fields(s.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		ip, err := netip.ParseAddr(words[1])
		if err != nil {
			return nil, fmt.Errorf("%s: nameserver %q: want an IP address", path, words[1])
		}
		out = append(out, netip.AddrPortFrom(ip, 53))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no nameserver", path)
	}
	return out, s.Err()
}

// forward asks the resolvers in turn and returns the first answer, with the
// client's id. The query goes out as it came, so that options of EDNS0 pass.
func (s *Server) forward(ctx context.Context, raw []byte, q *query, tcp bool) ([]byte, error) {
	ask := make([]byte, len(raw))
	copy(ask, raw)
	err := error(nil)
	for _, r := range s.config.Resolvers {
		var answer []byte
		attempt, cancel := context.WithTimeout(ctx, s.config.Timeout)
		if tcp {
			answer, err = exchangeTCP(attempt, r, ask, q, &s.counts.Spoofed)
		} else {
			answer, err = exchangeUDP(attempt, r, ask, q, mostUDP, &s.counts.Spoofed)
		}
		cancel()
		if err == nil {
			setID(answer, q.header.ID)
			return answer, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// newID draws an id that nobody can guess (RFC 5452).
func newID() uint16 {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint16(b[:])
}

// exchangeUDP has a socket of its own: a port that nobody can guess either, and
// connected, so that datagrams of others do not arrive.
func exchangeUDP(ctx context.Context, to netip.AddrPort, ask []byte, q *query, most int, spoofed *atomic.Uint64) ([]byte, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", to.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	id := newID()
	setID(ask, id)
	if _, err := c.Write(ask); err != nil {
		return nil, err
	}
	b := make([]byte, most+1) // one more than anybody gets: longer is told from cut
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if q.answers(b[:n], id) {
			return b[:n], nil
		}
		spoofed.Add(1)
	}
}

func exchangeTCP(ctx context.Context, to netip.AddrPort, ask []byte, q *query, spoofed *atomic.Uint64) ([]byte, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	id := newID()
	setID(ask, id)
	if err := writeMessage(c, ask); err != nil {
		return nil, err
	}
	answer, err := readMessage(c)
	if err != nil {
		return nil, err
	}
	if !q.answers(answer, id) {
		spoofed.Add(1)
		return nil, errors.New("the answer is to another question")
	}
	return answer, nil
}

// writeMessage puts the length in front (RFC 1035, 4.2.2), in one write.
func writeMessage(w io.Writer, m []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(m)), uint16(len(m))), m...))
	return err
}

func readMessage(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	m := make([]byte, binary.BigEndian.Uint16(n[:]))
	_, err := io.ReadFull(r, m)
	return m, err
}
