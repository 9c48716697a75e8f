// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// names is a fixed set.
type names map[string]bool

func (n names) Has(name string) bool { return n[name] }

func openAddresses(t *testing.T, path string) *Addresses {
	t.Helper()
	a, err := OpenAddresses(DefaultRange4, DefaultRange6, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// serve starts a server that ends with the test.
func serve(t *testing.T, c Config) *Server {
	t.Helper()
	c.Address = netip.MustParseAddrPort("127.0.0.1:0")
	if c.Addresses == nil {
		c.Addresses = openAddresses(t, "")
	}
	ctx, stop := context.WithCancel(context.Background())
	s, err := Listen(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() { s.Serve(ctx) })
	t.Cleanup(func() { stop(); done.Wait() })
	return s
}

// question packs a query; udp > 0 adds EDNS0.
func question(t *testing.T, id uint16, name string, kind dnsmessage.Type, udp uint16) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	if udp > 0 {
		m.Additionals = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeOPT, Class: dnsmessage.Class(udp)},
			Body:   &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("cookie!!")}}},
		}}
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func ask(t *testing.T, s *Server, network string, raw []byte) dnsmessage.Message {
	t.Helper()
	c, err := net.DialTimeout(network, s.Address().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	var answer []byte
	if network == "tcp" {
		if err := writeMessage(c, raw); err != nil {
			t.Fatal(err)
		}
		answer, err = readMessage(c)
	} else {
		if _, err := c.Write(raw); err != nil {
			t.Fatal(err)
		}
		answer = make([]byte, 65535)
		var n int
		n, err = c.Read(answer)
		answer = answer[:n]
	}
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		t.Fatal(err)
	}
	return m
}

// resolver answers datagrams and messages; nil answers nothing.
func resolver(t *testing.T, answer func(q dnsmessage.Message, tcp bool) []dnsmessage.Message) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() { l.Close(); p.Close(); done.Wait() })
	reply := func(raw []byte, tcp bool, write func([]byte)) {
		var q dnsmessage.Message
		if err := q.Unpack(raw); err != nil {
			t.Errorf("the resolver got no query: %v", err)
			return
		}
		for _, m := range answer(q, tcp) {
			out, err := m.Pack()
			if err != nil {
				t.Error(err)
			}
			write(out)
		}
	}
	done.Go(func() {
		b := make([]byte, 65535)
		for {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			reply(b[:n], false, func(out []byte) { _, _ = p.WriteTo(out, from) })
		}
	})
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if raw, err := readMessage(c); err == nil {
				reply(raw, true, func(out []byte) { _ = writeMessage(c, out) })
			}
			c.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// texts answers with n records of TXT.
func texts(q dnsmessage.Message, n int) dnsmessage.Message {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true}, Questions: q.Questions}
	for range n {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET, TTL: 7},
			Body:   &dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 200)}},
		})
	}
	return m
}

func TestMeshNamesHaveAddressesOfBothFamiliesAndOthersAreForwarded(t *testing.T) {
	up := resolver(t, func(q dnsmessage.Message, _ bool) []dnsmessage.Message { return []dnsmessage.Message{texts(q, 1)} })
	s := serve(t, Config{Names: names{"payments": true}, Resolvers: []netip.AddrPort{up}})
	want4, want6, err := s.config.Addresses.Of("payments")
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		m := ask(t, s, network, question(t, 7, "PayMents.", dnsmessage.TypeA, 0))
		if m.ID != 7 || m.RCode != 0 || len(m.Answers) != 1 || netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A) != want4 {
			t.Errorf("%s A: %+v, want %s", network, m, want4)
		}
		m = ask(t, s, network, question(t, 8, "payments.", dnsmessage.TypeAAAA, 1232))
		if len(m.Answers) != 1 || netip.AddrFrom16(m.Answers[0].Body.(*dnsmessage.AAAAResource).AAAA) != want6 {
			t.Errorf("%s AAAA: %+v, want %s", network, m, want6)
		}
		if len(m.Additionals) != 1 || m.Additionals[0].Header.Type != dnsmessage.TypeOPT {
			t.Errorf("%s: EDNS0 is not answered: %+v", network, m.Additionals)
		}
		m = ask(t, s, network, question(t, 9, "payments.", dnsmessage.TypeMX, 0))
		if m.RCode != 0 || len(m.Answers) != 0 {
			t.Errorf("%s MX: %+v, want no error and no answer", network, m)
		}
		m = ask(t, s, network, question(t, 10, "example.com.", dnsmessage.TypeTXT, 0))
		if m.ID != 10 || len(m.Answers) != 1 || m.Answers[0].Header.TTL != 7 {
			t.Errorf("%s forwarded: %+v", network, m)
		}
	}
	if c := s.Counts(); c.Mesh.Load() != 6 || c.Forwarded.Load() != 2 || c.Queries.Load() != 8 {
		t.Errorf("counted %d mesh, %d forwarded, %d queries; want 6, 2, 8", c.Mesh.Load(), c.Forwarded.Load(), c.Queries.Load())
	}
}

func TestOptionsOfEDNS0ReachTheResolver(t *testing.T) {
	seen := make(chan dnsmessage.Message, 1)
	up := resolver(t, func(q dnsmessage.Message, _ bool) []dnsmessage.Message {
		seen <- q
		return []dnsmessage.Message{texts(q, 1)}
	})
	s := serve(t, Config{Names: names{}, Resolvers: []netip.AddrPort{up}})
	ask(t, s, "udp", question(t, 1, "example.com.", dnsmessage.TypeTXT, 1400))
	q := <-seen
	if len(q.Additionals) != 1 || q.Additionals[0].Header.Class != 1400 || string(q.Additionals[0].Body.(*dnsmessage.OPTResource).Options[0].Data) != "cookie!!" {
		t.Errorf("the resolver got %+v", q.Additionals)
	}
}

func TestAnswersTooLongForUDPComeByTCP(t *testing.T) {
	up := resolver(t, func(q dnsmessage.Message, _ bool) []dnsmessage.Message { return []dnsmessage.Message{texts(q, 30)} })
	s := serve(t, Config{Names: names{}, Resolvers: []netip.AddrPort{up}})
	for _, udp := range []uint16{0, 1232, 65535} {
		if m := ask(t, s, "udp", question(t, 1, "example.com.", dnsmessage.TypeTXT, udp)); !m.Truncated || len(m.Answers) != 0 {
			t.Errorf("for a client of %d bytes: truncated %v, %d answers", udp, m.Truncated, len(m.Answers))
		}
	}
	if m := ask(t, s, "tcp", question(t, 1, "example.com.", dnsmessage.TypeTXT, 0)); m.Truncated || len(m.Answers) != 30 {
		t.Errorf("by TCP: truncated %v, %d answers, want 30", m.Truncated, len(m.Answers))
	}
}

func TestForeignAnswersAreDroppedAndTheRightOneIsTaken(t *testing.T) {
	up := resolver(t, func(q dnsmessage.Message, _ bool) []dnsmessage.Message {
		id, question := texts(q, 2), texts(q, 3)
		id.ID++
		question.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("evil.com."), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}}
		return []dnsmessage.Message{id, question, texts(q, 1)}
	})
	s := serve(t, Config{Names: names{}, Resolvers: []netip.AddrPort{up}})
	if m := ask(t, s, "udp", question(t, 1, "example.com.", dnsmessage.TypeTXT, 0)); len(m.Answers) != 1 {
		t.Errorf("%d answers, want the one of the right message", len(m.Answers))
	}
	if n := s.Counts().Spoofed.Load(); n != 2 {
		t.Errorf("%d foreign answers counted, want 2", n)
	}
}

func TestTheNextResolverIsAskedAndWithoutAnyItIsServfail(t *testing.T) {
	silent := resolver(t, func(dnsmessage.Message, bool) []dnsmessage.Message { return nil })
	up := resolver(t, func(q dnsmessage.Message, _ bool) []dnsmessage.Message { return []dnsmessage.Message{texts(q, 1)} })
	s := serve(t, Config{Names: names{}, Resolvers: []netip.AddrPort{silent, up}, Timeout: 20 * time.Millisecond})
	if m := ask(t, s, "udp", question(t, 1, "example.com.", dnsmessage.TypeTXT, 0)); len(m.Answers) != 1 {
		t.Errorf("the second resolver's answer: %+v", m)
	}
	s = serve(t, Config{Names: names{}, Resolvers: []netip.AddrPort{silent}, Timeout: 20 * time.Millisecond})
	if m := ask(t, s, "udp", question(t, 1, "example.com.", dnsmessage.TypeTXT, 0)); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("without an answer: %v, want SERVFAIL", m.RCode)
	}
}

func TestMoreForwardsThanAllowedAreRefused(t *testing.T) {
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	up := resolver(t, func(q dnsmessage.Message, _ bool) []dnsmessage.Message {
		arrived <- struct{}{}
		<-release
		return []dnsmessage.Message{texts(q, 1)}
	})
	s := serve(t, Config{Names: names{}, Resolvers: []netip.AddrPort{up}, Timeout: patience, MaxForwards: 1})
	first := make(chan dnsmessage.Message, 1)
	raw := question(t, 1, "example.com.", dnsmessage.TypeTXT, 0)
	go func() { first <- ask(t, s, "udp", raw) }()
	<-arrived
	if m := ask(t, s, "udp", raw); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("the second: %v, want SERVFAIL", m.RCode)
	}
	close(release)
	if m := <-first; len(m.Answers) != 1 {
		t.Errorf("the first: %+v", m)
	}
}

func TestOnlyLoopbackIsServed(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:53"} {
		s, err := Listen(context.Background(), Config{Address: netip.MustParseAddrPort(address), Names: names{}})
		if err == nil {
			s.close()
			t.Errorf("%s is served", address)
		}
	}
}

func TestAddressesStayWithTheirNamesOverRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addresses")
	small := netip.MustParsePrefix("240.240.0.0/28") // so that names collide
	first, err := OpenAddresses(small, DefaultRange6, path)
	if err != nil {
		t.Fatal(err)
	}
	had, taken := map[string]netip.Addr{}, map[netip.Addr]string{}
	all := strings.Fields("a b c d e f g h i j k l m n")
	for _, name := range all {
		v4, v6, err := first.Of(name)
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := taken[v4]; twice {
			t.Fatalf("%s and %s have %s both", name, other, v4)
		}
		had[name], taken[v4] = v4, name
		for _, ip := range []netip.Addr{v4, v6} {
			if got, ok := first.NameOf(ip); !ok || got != name {
				t.Errorf("%s belongs to %q, want %q", ip, got, name)
			}
		}
	}
	if _, _, err := first.Of("one too many"); err == nil {
		t.Error("a range of 14 addresses has a 15th")
	}
	first.Close()
	second, err := OpenAddresses(small, DefaultRange6, path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for i := len(all) - 1; i >= 0; i-- { // in another order
		if v4, _, err := second.Of(all[i]); err != nil || v4 != had[all[i]] {
			t.Errorf("%s has %s (%v) after a restart, had %s", all[i], v4, err, had[all[i]])
		}
	}
}

func FuzzQuery(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08payments\x00\x00\x01\x00\x01"))
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x1c\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	a, err := OpenAddresses(DefaultRange4, DefaultRange6, "")
	if err != nil {
		f.Fatal(err)
	}
	s := &Server{config: Config{Names: names{"payments": true, "a": true}, Addresses: a}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, answer := s.local(raw)
		if q == nil && answer != nil {
			t.Fatal("an answer to nobody")
		}
		if answer == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("the answer cannot be read: %v", err)
		}
		if !m.Response || m.ID != q.header.ID {
			t.Fatalf("answered with %+v", m.Header)
		}
		if len(answer) > len(raw)+plainUDP {
			t.Fatalf("%d bytes answered to %d", len(answer), len(raw))
		}
	})
}
