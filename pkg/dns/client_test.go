// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/outrigger-mesh/outrigger/pkg/dns/dnstest"
)

func startZones(t *testing.T) *dnstest.Server {
	t.Helper()
	s, err := dnstest.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// hostFiles is a host with these files.
func hostFiles(t *testing.T, conf, hosts string) *Host {
	t.Helper()
	dir := t.TempDir()
	h := &Host{ResolvConf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts")}
	for path, text := range map[string]string{h.ResolvConf: conf, h.Hosts: hosts} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func testClient(t *testing.T, resolvers ...netip.AddrPort) *Client {
	return &Client{
		Host: hostFiles(t, "search a.test b.test\noptions ndots:2\n", "10.9.9.9 Pinned\nfd00::9 pinned\n"), Resolvers: resolvers,
		Timeout: 5 * time.Second, Tries: 2, Counts: new(ClientCounts),
	}
}

func addresses(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestAddressesAreOfTheFamilyThatIsWanted(t *testing.T) {
	s := startZones(t)
	s.Set("both.test.", dnstest.Addresses("10.0.0.2", "10.0.0.1", "fd00::1"))
	s.Set("four.test.", dnstest.Addresses("10.0.0.1"))
	s.Set("six.test.", dnstest.Addresses("fd00::1"))
	s.Set("alias.test.", dnstest.Zone{Alias: "four.test.", TTL: 7})
	c := testClient(t, s.Addr())
	for _, tt := range []struct {
		name   string
		family Family
		want   []netip.Addr // nil: none
	}{
		{"both.test.", V4, addresses("10.0.0.2", "10.0.0.1")},
		{"both.test.", V6, addresses("fd00::1")},
		{"both.test.", V6ThenV4, addresses("fd00::1")},
		{"both.test.", V4ThenV6, addresses("10.0.0.2", "10.0.0.1")},
		{"both.test.", Both, addresses("10.0.0.2", "10.0.0.1", "fd00::1")},
		{"four.test.", V6ThenV4, addresses("10.0.0.1")},
		{"four.test.", V6, nil},
		{"six.test.", V4ThenV6, addresses("fd00::1")},
		{"alias.test.", V4, addresses("10.0.0.1")},
		{"nobody.test.", Both, nil},
		{"pinned", V4, addresses("10.9.9.9")},
		{"pinned", Both, addresses("10.9.9.9", "fd00::9")},
		{"localhost", V4, addresses("127.0.0.1")},
	} {
		a, err := c.Lookup(t.Context(), tt.name, tt.family)
		if !slices.Equal(a.Addresses, tt.want) || errors.Is(err, ErrNone) != (tt.want == nil) {
			t.Errorf("%s of family %d: %v, %v; want %v", tt.name, tt.family, a.Addresses, err, tt.want)
		}
	}
	if a, err := c.Lookup(t.Context(), "alias.test.", V4); err != nil || a.TTL != 7*time.Second {
		t.Errorf("an alias of 7 s to an address of 60 s has a TTL of %s, %v", a.TTL, err)
	}
}

func TestTheSearchListIsUsedAsResolvConfSays(t *testing.T) {
	s := startZones(t)
	s.Set("db.b.test.", dnstest.Addresses("10.0.0.1"))
	s.Set("db.x.y.", dnstest.Addresses("10.0.0.2"))
	s.Set("db.", dnstest.Addresses("10.0.0.3"))
	c := testClient(t, s.Addr())
	for _, tt := range []struct {
		name, want string
	}{{"db", "10.0.0.1"}, {"db.", "10.0.0.3"}, {"db.x.y", "10.0.0.2"}} {
		a, err := c.Lookup(t.Context(), tt.name, V4)
		if err != nil || !slices.Equal(a.Addresses, addresses(tt.want)) {
			t.Errorf("%s: %v, %v; want %s", tt.name, a.Addresses, err, tt.want)
		}
	}
	if n := s.Queries("A db.x.y.a.test."); n != 0 {
		t.Errorf("a name of two dots was searched for first")
	}
	c.NoSearch = true
	if a, err := c.Lookup(t.Context(), "db", V4); err != nil || !slices.Equal(a.Addresses, addresses("10.0.0.3")) {
		t.Errorf("without the search list: %v, %v", a.Addresses, err)
	}
}

func TestFailuresAreNotMistakenForNames(t *testing.T) {
	s, second := startZones(t), startZones(t)
	s.Set("fails.test.", dnstest.Zone{Code: dnsmessage.RCodeServerFailure})
	s.Set("silent.test.", dnstest.Zone{Silent: true})
	c := testClient(t, s.Addr())
	c.Timeout = 20 * time.Millisecond
	for _, name := range []string{"fails.test.", "silent.test."} {
		_, err := c.Lookup(t.Context(), name, V6ThenV4)
		if err == nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: error %v, want one that leaves it open", name, err)
		}
	}
	if got := []uint64{c.Counts.Lookups.Load(), c.Counts.Timeouts.Load(), c.Counts.Failures.Load(), c.Counts.NotFound.Load()}; !slices.Equal(got, []uint64{2, 1, 2, 0}) {
		t.Errorf("lookups, timeouts, failures, not found: %v", got)
	}
	// The next resolver of the list is asked.
	second.Set("fails.test.", dnstest.Addresses("10.0.0.1"))
	c.Resolvers = append(c.Resolvers, second.Addr())
	if a, err := c.Lookup(t.Context(), "fails.test.", V4); err != nil || !slices.Equal(a.Addresses, addresses("10.0.0.1")) {
		t.Errorf("with a second resolver: %v, %v", a.Addresses, err)
	}
}

func TestLongAnswersComeByTCPAndAreBounded(t *testing.T) {
	s := startZones(t)
	z := dnstest.Addresses()
	for i := range MaxAddresses + 10 {
		z.Addresses = append(z.Addresses, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
	}
	z.Truncated = true
	s.Set("many.test.", z)
	s.Set("few.test.", dnstest.Addresses("10.0.0.1"))
	c := testClient(t, s.Addr())
	a, err := c.Lookup(t.Context(), "many.test.", V4)
	if err != nil || len(a.Addresses) != MaxAddresses || s.ByTCP() != 1 {
		t.Errorf("%d addresses, %v, %d queries by TCP", len(a.Addresses), err, s.ByTCP())
	}
	c.TCP = true
	if _, err := c.Lookup(t.Context(), "few.test.", V4); err != nil || s.ByTCP() != 2 {
		t.Errorf("by TCP only: %v, %d queries by TCP", err, s.ByTCP())
	}
}

func TestAliasesWithoutEndAreNoAnswer(t *testing.T) {
	s := startZones(t)
	s.Set("loop.test.", dnstest.Zone{Alias: "loop.test."})
	_, err := testClient(t, s.Addr()).Lookup(t.Context(), "loop.test.", V4)
	if err == nil || errors.Is(err, ErrNone) {
		t.Errorf("a name that is its own alias: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	q, raw, err := newQuery("x.test.", dnsmessage.TypeA)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := q.addresses(raw)
		if err == nil && len(a.Addresses) == 0 || len(a.Addresses) > MaxAddresses {
			t.Fatal(fmt.Sprint("an answer of ", len(a.Addresses), " addresses"))
		}
	})
}
