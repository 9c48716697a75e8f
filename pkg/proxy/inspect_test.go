// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec/proxyproto"
	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/reactor/sim"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// helloOf is the ClientHello of crypto/tls.
func helloOf(t testing.TB, name string, protos ...string) []byte {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer a.Close()
		_ = tls.Client(a, &tls.Config{ServerName: name, NextProtos: protos, InsecureSkipVerify: true}).Handshake()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(b, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	b.Close()
	<-done
	return append(head, body...)
}

func tcpTo(cluster string) *resource.TCPProxy {
	return &resource.TCPProxy{StatPrefix: cluster, Clusters: []resource.WeightedCluster{{Name: cluster, Weight: 1}}, MaxConnectAttempts: 1, IdleTimeout: time.Hour}
}

// looked is a proxy whose listener tells TLS by name, HTTP and all else apart.
// Each way ends at an upstream that keeps what it gets.
type looked struct {
	*simRig
	got map[string][]byte // by upstream
	eof map[string]bool
}

func newLooked(t testing.TB, link sim.Link, edit func(*resource.Listener, *resource.Snapshot)) *looked {
	t.Helper()
	l := &looked{got: map[string][]byte{}, eof: map[string]bool{}}
	l.simRig = newSim(t, 1, link, func(s *resource.Snapshot) {
		ln := s.Listeners["l"]
		for name, m := range map[string]resource.FilterChainMatch{
			"named": {ServerNames: []string{"*.example"}, TransportProtocol: "tls"},
			"tls":   {TransportProtocol: "tls"},
			"h1":    {ApplicationProtocols: []string{"http/1.1", "http/1.0"}},
			"h2":    {ApplicationProtocols: []string{"h2c"}},
			"other": {},
		} {
			withCluster(s, name, address[name])
			ln.FilterChains = append(ln.FilterChains, &resource.FilterChain{Name: name, Match: m, TCP: tcpTo(name)})
		}
		ln.FilterChains = ln.FilterChains[1:]
		ln.DetectionTimeout = 2 * time.Second
		ln.Filters = []resource.ListenerFilter{{Kind: resource.TLSInspector}, {Kind: resource.HTTPInspector}}
		if edit != nil {
			edit(ln, s)
		}
	})
	for name, a := range address {
		err := l.world.Serve(reactor.TCPAddr(netip.MustParseAddrPort(a)), func(p *sim.Peer) {
			p.OnData = func(_ *sim.Peer, b []byte) { l.got[name] = append(l.got[name], b...) }
			p.OnEOF = func(p *sim.Peer) { l.eof[name] = true; p.CloseWrite() }
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return l
}

var address = map[string]string{"named": "10.0.0.9:1", "tls": "10.0.0.9:2", "h1": "10.0.0.9:3", "h2": "10.0.0.9:4", "other": "10.0.0.9:5"}

func TestEveryByteOfALookedAtConnectionReachesItsChain(t *testing.T) {
	for name, in := range map[string][]byte{
		"named": append(helloOf(t, "A.Example", "h2"), "and more"...),
		"tls":   append(helloOf(t, "a.other"), "and more"...),
		"h1":    []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n" + strings.Repeat("b", 100_000)),
		"h2":    []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00"),
		"other": []byte("SSH-2.0-x\r\n" + strings.Repeat("b", 100_000)),
	} {
		for _, segment := range []int{0, 1, 7} {
			if segment == 1 && len(in) > 10_000 {
				in = in[:10_000]
			}
			l := newLooked(t, sim.Link{Latency: time.Millisecond, MaxSegment: segment}, nil)
			c := l.dial()
			c.Write(in)
			c.CloseWrite()
			l.until(name, 20*time.Second, func() bool { return l.eof[name] })
			if !bytes.Equal(l.got[name], in) || len(l.got) != 1 {
				t.Errorf("%s by %d: %d of %d bytes, upstreams %d", name, segment, len(l.got[name]), len(in), len(l.got))
			}
			l.until("the end", 5*time.Second, func() bool { return c.EOF })
			l.settled()
		}
	}
}

// What ends before it is recognised is no message of that protocol; another's it may be.
func TestAClientThatEndsWhileItIsLookedAtIsServedWithWhatItSent(t *testing.T) {
	l := newLooked(t, sim.Link{Latency: time.Millisecond}, nil)
	c := l.dial()
	c.Write([]byte("GET"))
	if err := l.world.Run(100 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if len(l.got) != 0 {
		t.Fatal("served before it was looked at")
	}
	c.CloseWrite()
	l.until("the upstream's end", time.Second, func() bool { return l.eof["other"] })
	if string(l.got["other"]) != "GET" {
		t.Errorf("got %q", l.got["other"])
	}
	silent := l.dial()
	silent.CloseWrite()
	l.until("the end of one that said nothing", time.Second, func() bool { return silent.EOF || silent.Err != nil })
}

// CVE-2026-56853 of Go: a time limit that began only once the preface was there.
func TestTheTimeLimitCoversTheLookFromTheAcceptOn(t *testing.T) {
	for _, keep := range []bool{false, true} {
		for _, slow := range []string{"PRI * HTTP/2.0\r\n\r\nSM", "GET / HTTP/1.1 ", string(helloOf(t, "a.example"))} {
			l := newLooked(t, sim.Link{Latency: time.Millisecond}, func(ln *resource.Listener, _ *resource.Snapshot) { ln.ContinueOnTimeout = keep })
			c := l.dial()
			start := l.world.Now()
			for k := range 15 {
				l.world.At(time.Duration(k)*150*time.Millisecond, func() { c.Write([]byte{slow[k]}) })
			}
			done := func() bool { return c.EOF || c.Err != nil || len(l.got["other"]) > 0 }
			l.until("the end of the look", 10*time.Second, done)
			took := l.world.Now() - start
			if took < 1990*time.Millisecond || took > 2100*time.Millisecond || keep != (len(l.got["other"]) > 0) {
				t.Errorf("%.8q, continue %v: after %v, upstream has %q", slow, keep, took, l.got["other"])
			}
			if keep && !strings.HasPrefix(slow, string(l.got["other"])) {
				t.Errorf("continued with %q", l.got["other"])
			}
		}
	}
}

// The head's own limit counts from the accept, too.
func TestTheLimitOfAHeadIncludesTheLook(t *testing.T) {
	r := newSim(t, 1, sim.Link{Latency: time.Millisecond}, func(s *resource.Snapshot) {
		withCluster(s, "c", "10.0.0.9:80")
		ln := s.Listeners["l"]
		ln.Filters = []resource.ListenerFilter{{Kind: resource.HTTPInspector}}
		ln.DetectionTimeout = 5 * time.Second
		ln.FilterChains[0].HTTP.RequestHeadersTimeout = 3 * time.Second
	})
	c := r.dial()
	start := r.world.Now()
	c.Write([]byte("GET"))
	r.world.At(2*time.Second, func() { c.Write([]byte(" / HTTP/1.1\r\nHo")) })
	r.until("the answer", 10*time.Second, func() bool { return bytes.HasPrefix(c.Received, []byte("HTTP/1.1 408")) })
	if took := r.world.Now() - start; took > 3100*time.Millisecond {
		t.Errorf("after %v", took)
	}
	r.settled()
}

func TestAClientThatLeavesWhileItIsLookedAtLeavesNothing(t *testing.T) {
	l := newLooked(t, sim.Link{Latency: time.Millisecond}, nil)
	for k := range 6 {
		c := l.dial()
		if k%2 == 0 {
			c.Write([]byte("\x16\x03\x01"))
		}
		l.world.At(time.Duration(k+1)*10*time.Millisecond, c.Reset)
	}
	ln := l.p.listeners["l"]
	l.until("all to be looked at", time.Second, func() bool { return ln.looking.Load() > 0 })
	l.until("all to be gone", time.Second, func() bool { return ln.active.Load() == 0 })
	if n := ln.looking.Load(); n != 0 {
		t.Errorf("%d are looked at", n)
	}
	l.settled()
}

func TestWhatIsHeldOfALookedAtConnectionIsBounded(t *testing.T) {
	l := newLooked(t, sim.Link{Latency: time.Millisecond}, func(ln *resource.Listener, _ *resource.Snapshot) {
		ln.Filters = []resource.ListenerFilter{{Kind: resource.HTTPInspector}}
	})
	c := l.dial()
	in := []byte("GET /" + strings.Repeat("a", peekLimit-5)) // a line without an end
	c.Write(in)
	l.until("the look to end with all that may be held", time.Second, func() bool { return len(l.got["other"]) == len(in) })
}

func TestAPROXYHeaderTellsTheAddressesAndIsTakenAway(t *testing.T) {
	from, to := netip.MustParseAddrPort("192.0.2.7:5000"), netip.MustParseAddrPort("10.0.0.1:443")
	for version, write := range []func([]byte, netip.AddrPort, netip.AddrPort) []byte{proxyproto.AppendV1, proxyproto.AppendV2} {
		l := newLooked(t, sim.Link{Latency: time.Millisecond, MaxSegment: 5}, func(ln *resource.Listener, s *resource.Snapshot) {
			ln.Filters = append([]resource.ListenerFilter{{Kind: resource.ProxyProtocol}}, ln.Filters...)
			for _, ch := range ln.FilterChains {
				ch.Match.DestinationPort, ch.Match.SourcePrefixes = 443, prefixList("192.0.2.0/24")
				ch.Match.DirectSourcePrefixes = prefixList("10.0.0.0/8", "0.0.0.0/1")
			}
			s.Clusters["named"].ProxyProtocol = uint8(3 - (version + 1)) // out by the other one
		})
		c := l.dial()
		hello := helloOf(t, "a.example")
		c.Write(append(write(nil, from, to), hello...))
		other := []func([]byte, netip.AddrPort, netip.AddrPort) []byte{proxyproto.AppendV2, proxyproto.AppendV1}[version]
		want := append(other(nil, from, to), hello...)
		l.until("the hello", 5*time.Second, func() bool { return len(l.got["named"]) >= len(want) })
		if !bytes.Equal(l.got["named"], want) {
			t.Errorf("version %d: got %q", version+1, l.got["named"])
		}
	}
}

func TestWhatIsNoPROXYHeaderIsRefused(t *testing.T) {
	for _, in := range []string{"GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 x\r\n", string(proxyproto.AppendV1(nil, netip.AddrPort{}, netip.AddrPort{}))} {
		l := newLooked(t, sim.Link{Latency: time.Millisecond}, func(ln *resource.Listener, _ *resource.Snapshot) {
			ln.Filters = []resource.ListenerFilter{{Kind: resource.ProxyProtocol, RefuseVersion: [3]bool{1: true}}}
		})
		c := l.dial()
		c.Write([]byte(in))
		l.until(in, time.Second, func() bool { return c.EOF || c.Err != nil })
		if len(l.got) != 0 {
			t.Errorf("%q reached an upstream", in)
		}
	}
	l := newLooked(t, sim.Link{Latency: time.Millisecond}, func(ln *resource.Listener, _ *resource.Snapshot) {
		ln.Filters = []resource.ListenerFilter{{Kind: resource.ProxyProtocol, HeaderOptional: true}}
	})
	c := l.dial()
	c.Write([]byte("hello"))
	l.until("one without a header", time.Second, func() bool { return string(l.got["other"]) == "hello" })
}

func TestARedirectedConnectionGoesByItsOriginalDestination(t *testing.T) {
	l := newLooked(t, sim.Link{Latency: time.Millisecond}, func(ln *resource.Listener, _ *resource.Snapshot) {
		ln.Filters = []resource.ListenerFilter{{Kind: resource.RestoreOriginalDst}}
		for _, ch := range ln.FilterChains {
			if ch.Name == "h2" {
				ch.Match = resource.FilterChainMatch{DestinationPort: 3306, PrefixRanges: prefixList("10.9.9.9/32")}
			}
		}
	})
	l.world.Redirect(func(_, _ netip.AddrPort) netip.AddrPort { return netip.MustParseAddrPort("10.9.9.9:3306") })
	c := l.dial()
	c.Write([]byte("x"))
	l.until("the byte", time.Second, func() bool { return len(l.got["h2"]) == 1 })
}

// A listener with inspectors on real sockets, with crypto/tls at both ends: the name
// picks the server, whose certificate the client checks.
func TestTLSIsPassedThroughByServerName(t *testing.T) {
	names := []string{"a.example", "b.example"}
	r := newRig(t, func(s *resource.Snapshot) {
		ln := s.Listeners["l"]
		ln.Filters = []resource.ListenerFilter{{Kind: resource.TLSInspector}}
		ln.DetectionTimeout, ln.FilterChains = 5*time.Second, nil
		for _, name := range names {
			withCluster(s, name, scripted(t, func(c net.Conn) {
				b := make([]byte, 5)
				if _, err := io.ReadFull(c, b); err == nil {
					fmt.Fprintf(c, "%s %x", name, b[0])
				}
			}))
			ln.FilterChains = append(ln.FilterChains, &resource.FilterChain{Name: name, Match: resource.FilterChainMatch{ServerNames: []string{name}}, TCP: tcpTo(name)})
		}
	})
	for _, name := range names {
		c := r.dial()
		hello := helloOf(t, name)
		for _, b := range hello { // slowly, and yet byte for byte
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, len(name)+3)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != name+" 16" {
			t.Errorf("%s: %q %v", name, got, err)
		}
		c.Close()
	}
	c := r.dial()
	c.Write([]byte("no TLS at all"))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("a connection for no chain got %d bytes", n)
	}
	c.Close()
}

// A filter looks at what follows the PROXY header, however many filters have decided
// before it: else what a client puts where another one looks picks its chain.
func TestEveryFilterLooksBehindThePROXYHeader(t *testing.T) {
	from, to := netip.MustParseAddrPort("192.0.2.7:5000"), netip.MustParseAddrPort("10.0.0.1:443")
	header := proxyproto.AppendV1(nil, from, to)
	for name, in := range map[string]string{
		"h1":    "GET /" + strings.Repeat("a", len(header)) + " HTTP/1.1\r\nhost: a\r\n\r\n",
		"h2":    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"other": strings.Repeat("x", len(header)) + "GET / HTTP/1.1\r\n\r\n",
	} {
		for _, segment := range []int{0, 1} {
			l := newLooked(t, sim.Link{Latency: time.Millisecond, MaxSegment: segment}, func(ln *resource.Listener, _ *resource.Snapshot) {
				ln.Filters = append([]resource.ListenerFilter{{Kind: resource.ProxyProtocol}}, ln.Filters...)
			})
			c := l.dial()
			c.Write(append(header[:len(header):len(header)], in...))
			c.CloseWrite()
			l.until("an upstream's end", 20*time.Second, func() bool { return len(l.eof) > 0 })
			if string(l.got[name]) != in {
				t.Errorf("%s by %d: got %q", name, segment, l.got)
			}
		}
	}
}
