// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
)

// verdict parses every prefix of in and checks that the first answer stays.
func verdict(t testing.TB, in []byte) (h Header, n int, err error) {
	t.Helper()
	decided := false
	for k := range len(in) + 1 {
		var next Header
		m, e := Parse(in[:k], &next)
		if decided && (m != n || e != err) {
			t.Fatalf("%d bytes of %q: %d %v after %d %v", k, in, m, e, n, err)
		}
		h, n, err = next, m, e
		decided = n > 0 || err != nil
	}
	return h, n, err
}

// v2 makes a header of version 2 with what is behind its length.
func v2(command, family byte, payload string) string {
	return signatureV2 + string([]byte{command, family, byte(len(payload) >> 8), byte(len(payload))}) + payload
}

func tlv(kind byte, value string) string {
	return string([]byte{kind, byte(len(value) >> 8), byte(len(value))}) + value
}

const addresses4 = "\x0a\x00\x00\x01\x0a\x00\x00\x02\x01\xbb\x00\x50"

func summed(payload string) string {
	b := []byte(v2(0x21, 0x11, payload+tlv(TypeCRC32C, "\x00\x00\x00\x00")))
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return string(b)
}

func TestHeadersOfBothVersionsAreRead(t *testing.T) {
	for _, c := range []struct {
		in, source, destination string
		local                   bool
		tlvs                    int
	}{
		{"PROXY TCP4 10.0.0.1 10.0.0.2 443 80\r\n", "10.0.0.1:443", "10.0.0.2:80", false, 0},
		{"PROXY TCP6 ::1 2001:db8::2 0 65535\r\n", "[::1]:0", "[2001:db8::2]:65535", false, 0},
		{"PROXY TCP6 ::ffff:1.2.3.4 1:2:3:4:5:6:7:8 1 2\r\n", "1.2.3.4:1", "[1:2:3:4:5:6:7:8]:2", false, 0},
		{"PROXY UNKNOWN\r\n", "invalid AddrPort", "invalid AddrPort", false, 0},
		{"PROXY UNKNOWN ffff::1 x y\r\n", "invalid AddrPort", "invalid AddrPort", false, 0},
		{v2(0x21, 0x11, addresses4), "10.0.0.1:443", "10.0.0.2:80", false, 0},
		{v2(0x21, 0x12, addresses4), "10.0.0.1:443", "10.0.0.2:80", false, 0},
		{v2(0x21, 0x21, strings.Repeat("\x20", 32)+"\x00\x01\x00\x02"), "[2020:2020:2020:2020:2020:2020:2020:2020]:1", "[2020:2020:2020:2020:2020:2020:2020:2020]:2", false, 0},
		{v2(0x21, 0x31, strings.Repeat("/", 216)), "invalid AddrPort", "invalid AddrPort", false, 0},
		{v2(0x21, 0x00, ""), "invalid AddrPort", "invalid AddrPort", false, 0},
		{v2(0x21, 0x11, addresses4+tlv(TypeAuthority, "a.example")+tlv(TypeNoop, "")), "10.0.0.1:443", "10.0.0.2:80", false, 2},
		{summed(addresses4 + tlv(TypeUniqueID, "1")), "10.0.0.1:443", "10.0.0.2:80", false, 2},
		{v2(0x20, 0x00, ""), "invalid AddrPort", "invalid AddrPort", true, 0},
		{v2(0x20, 0x11, "short"), "invalid AddrPort", "invalid AddrPort", true, 0},
	} {
		h, n, err := verdict(t, []byte(c.in+"GET /"))
		if err != nil || n != len(c.in) {
			t.Errorf("%q: %d of %d bytes, %v", c.in, n, len(c.in), err)
			continue
		}
		count := 0
		for rest := h.TLVs; len(rest) > 0; count++ {
			_, _, rest = NextTLV(rest)
		}
		if h.Source.String() != c.source || h.Destination.String() != c.destination || h.Local != c.local || count != c.tlvs {
			t.Errorf("%q: %+v with %d TLVs", c.in, h, count)
		}
	}
}

func TestWhatIsNoHeaderIsRefused(t *testing.T) {
	damaged := []byte(summed(addresses4))
	damaged[17]++
	for _, c := range []struct {
		in   string
		want error
	}{
		{"GET / HTTP/1.1\r\n", ErrNone},
		{"PROXX", ErrNone},
		{"proxy TCP4 ", ErrNone},
		{"\r\n\r\n\x00\r\nQUIX", ErrNone},
		{"PROXY TCP4 10.0.0.1 10.0.0.2 443\r\n", ErrLine},
		{"PROXY TCP4 10.0.0.1 10.0.0.2 443 80\n", ErrLine},
		{"PROXY TCP4 10.0.0.1 10.0.0.2 443 80\rX", ErrLine},
		{"PROXY TCP4 10.0.0.1 10.0.0.2 443 80 \r\n", ErrPort},
		{"PROXY TCP4  10.0.0.1 10.0.0.2 443 80\r\n", ErrAddress},
		{"PROXY TCP4 10.0.0.01 10.0.0.2 443 80\r\n", ErrAddress},
		{"PROXY TCP4 ::1 ::2 443 80\r\n", ErrAddress},
		{"PROXY TCP6 10.0.0.1 10.0.0.2 443 80\r\n", ErrAddress},
		{"PROXY TCP6 fe80::1%eth0 ::2 443 80\r\n", ErrAddress},
		{"PROXY TCP4 10.0.0.1 10.0.0.2 65536 80\r\n", ErrPort},
		{"PROXY TCP4 10.0.0.1 10.0.0.2 +1 80\r\n", ErrPort},
		{"PROXY TCP4 10.0.0.1 10.0.0.2 01 80\r\n", ErrPort},
		{"PROXY UDP4 10.0.0.1 10.0.0.2 1 80\r\n", ErrLine},
		{"PROXY UNKNOWN " + strings.Repeat("a", 200), ErrLine},
		{"PROXY UNKNOWN " + strings.Repeat("a", 107-14-2) + "\r\n", nil},
		{"PROXY UNKNOWN " + strings.Repeat("a", 107-14-1) + "\r\n", ErrLine},
		{v2(0x11, 0x11, addresses4), ErrVersion},
		{v2(0x31, 0x11, addresses4), ErrVersion},
		{v2(0x22, 0x11, addresses4), ErrCommand},
		{v2(0x21, 0x41, addresses4), ErrFamily},
		{v2(0x21, 0x13, addresses4), ErrFamily},
		{v2(0x21, 0x11, addresses4[:11]), ErrLength},
		{v2(0x21, 0x21, addresses4), ErrLength},
		{signatureV2 + "\x21\x11\xff\xff", ErrLength},
		{signatureV2 + "\x20\x00\x40\x01", ErrLength},
		{string(damaged), ErrChecksum},
	} {
		if _, _, err := verdict(t, []byte(c.in)); err != c.want {
			t.Errorf("%q: %v, want %v", c.in, err, c.want)
		}
	}
}

// CVE-2026-47692 and HAProxy's bug of the same kind: a TLV whose length reaches
// beyond the header took bytes of the stream behind it for its own.
func TestATLVNeverReachesBeyondItsHeader(t *testing.T) {
	for _, payload := range []string{
		tlv(TypeUniqueID, "four")[:6],
		"\x05\xff\xff",
		"\x05\x00",
		"\x05",
		tlv(TypeNoop, "x") + "\x04\x00\x01",
		tlv(TypeCRC32C, "abc"),
		summedTwice,
	} {
		in := v2(0x21, 0x11, addresses4+payload) + strings.Repeat("S", 100)
		if _, _, err := verdict(t, []byte(in)); err != ErrTLV {
			t.Errorf("%q: %v", payload, err)
		}
	}
	if _, _, err := verdict(t, []byte(v2(0x21, 0x11, addresses4+strings.Repeat(tlv(TypeNoop, ""), 129)))); err != ErrTooManyTLVs {
		t.Errorf("129 TLVs: %v", err)
	}
}

const summedTwice = "\x03\x00\x04aaaa\x03\x00\x04bbbb"

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	parse := netip.MustParseAddrPort
	for _, c := range [][2]netip.AddrPort{
		{parse("10.0.0.1:443"), parse("192.168.1.2:80")},
		{parse("[2001:db8::1]:443"), parse("[::1]:80")},
		{parse("[::ffff:10.0.0.1]:443"), parse("10.0.0.2:80")},
		{parse("10.0.0.1:443"), parse("[::1]:80")},
		{{}, parse("[::1]:80")},
	} {
		for v, write := range []func([]byte, netip.AddrPort, netip.AddrPort) []byte{AppendV1, AppendV2} {
			b := write(nil, c[0], c[1])
			h, n, err := verdict(t, b)
			from, to := c[0], c[1]
			_, same := family(&from, &to)
			if !same {
				from, to = netip.AddrPort{}, netip.AddrPort{}
			}
			if err != nil || n != len(b) || h.Version != v+1 || h.Source != from || h.Destination != to || h.Local != (!same && v == 1) {
				t.Errorf("%q: %+v %v", b, h, err)
			}
		}
	}
}

func TestReadingAndWritingAllocateNothing(t *testing.T) {
	from, to := netip.MustParseAddrPort("[2001:db8::1]:443"), netip.MustParseAddrPort("[::1]:80")
	buf, other := make([]byte, 0, 200), []byte("x")
	var h Header
	if n := testing.AllocsPerRun(100, func() {
		for _, write := range []func([]byte, netip.AddrPort, netip.AddrPort) []byte{AppendV1, AppendV2} {
			if n, err := Parse(write(buf, from, to), &h); n == 0 || err != nil {
				t.Fatal(err)
			}
		}
		_, _ = Parse(other, &h)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzHeadersAreReadTheSameHoweverTheyAreCut(f *testing.F) {
	for _, seed := range []string{"PROXY TCP4 10.0.0.1 10.0.0.2 443 80\r\n", "PROXY TCP6 ::1 ::2 1 2\r\n", "PROXY UNKNOWN\r\n", v2(0x21, 0x11, addresses4+tlv(4, "a")), summed(addresses4)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1024 {
			in = in[:1024]
		}
		h, n, err := verdict(t, in)
		if err != nil || n == 0 || h.Transport != TCP || h.Source.Addr().Is6() != h.Destination.Addr().Is6() {
			return
		}
		var again Header
		if m, err := Parse(AppendV2(nil, h.Source, h.Destination), &again); m == 0 || err != nil || again.Source != h.Source || again.Destination != h.Destination {
			t.Errorf("%+v is written as %+v, %v", h, again, err)
		}
	})
}

func FuzzAddressesAreNetips(f *testing.F) {
	for _, seed := range []string{"10.0.0.1", "::1", "1::", "::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1::2::3", ":1", "1:", "12345::", "01.2.3.4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := netip.ParseAddr(s)
		for _, v6 := range []bool{false, true} {
			got, ok := address([]byte(s), v6)
			if good := err == nil && want.Zone() == "" && want.Is6() == v6; ok != good || ok && got != want.Unmap() {
				t.Errorf("%q: %v %v, netip says %v %v", s, got, ok, want, err)
			}
		}
	})
}
