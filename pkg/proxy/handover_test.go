// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/reactor"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// succeed makes a second proxy with the same configuration on the sockets of the first.
// The test's process is both, as far as sockets go.
func succeed(t *testing.T, old *rig, workers int) *rig {
	t.Helper()
	groups, err := old.p.DuplicateSockets()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Workers: workers, DrainTime: 200 * time.Millisecond, Binder: reactor.NewInherited(groups), HoldAccepting: true}
	next := &rig{t: t, addr: old.addr, snap: old.snap}
	if next.p, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- next.p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	next.apply(next.snap)
	return next
}

// person is a client that uses one connection.
type person struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialPerson(t *testing.T, addr string) *person {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &person{t, c, bufio.NewReader(c)}
}

func (p *person) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) answer() (body string, closes bool) {
	p.t.Helper()
	a, err := http.ReadResponse(p.in, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := io.ReadAll(a.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b), a.Close
}

const getHello = "GET /hello HTTP/1.1\r\nHost: a.example\r\n\r\n"

func TestIdleConnectionsGoOverAndBusyOnesAreServedToTheirEnd(t *testing.T) {
	release := make(chan struct{})
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/slow" {
			<-release
		}
		_, _ = io.WriteString(w, q.URL.Path)
	})
	old := newRigOf(t, Options{Workers: 2, DrainTime: 20 * time.Second}, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	var idle []*person
	for range 8 {
		p := dialPerson(t, old.addr)
		p.send(getHello)
		p.answer()
		idle = append(idle, p)
	}
	fresh := dialPerson(t, old.addr) // it has said nothing yet
	half := dialPerson(t, old.addr)  // it has begun to
	half.send("GET /half HTTP/1.1\r\nHost:")
	slow := dialPerson(t, old.addr)
	slow.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n")
	next := succeed(t, old, 3)
	waiting := dialPerson(t, old.addr)
	waiting.send(getHello)
	if body, _ := waiting.answer(); body != "/hello" { // by the old one, as if nothing was
		t.Errorf("got %q", body)
	}
	next.p.StartAccepting()
	given := make(chan int, 100)
	handed := make(chan error, 1)
	go func() {
		handed <- old.p.HandOver(t.Context(), func(l string) bool { return l == "l" }, func(list []HandedConn) (int, error) {
			next.p.AdoptOffLoop(list)
			given <- len(list)
			return len(list), nil
		})
	}()
	n := 0
	for n < 10 {
		n += <-given
	}
	for _, p := range append(idle, fresh, waiting) {
		p.send(getHello)
		if body, closes := p.answer(); body != "/hello" || closes {
			t.Errorf("a connection that went over: %q, closes: %v", body, closes)
		}
	}
	half.send(" a.example\r\n\r\n")
	if body, closes := half.answer(); body != "/half" || !closes {
		t.Errorf("a request that had begun: %q, closes: %v", body, closes)
	}
	close(release)
	if body, closes := slow.answer(); body != "/slow" || !closes {
		t.Errorf("a request that was under way: %q, closes: %v", body, closes)
	}
	if err := <-handed; err != nil {
		t.Error(err)
	}
	p := dialPerson(t, old.addr)
	p.send(getHello)
	if body, closes := p.answer(); body != "/hello" || closes {
		t.Errorf("a new connection: %q, closes: %v", body, closes)
	}
	if n != 10 || next.stat("outrigger.handover_taken_total") != 10 || old.stat("outrigger.handover_given_total") != 10 {
		t.Errorf("%d connections went over", n)
	}
}

func TestWhatASuccessorDoesNotTakeIsToldToClose(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, q.URL.Path) })
	for name, give := range map[string]func([]HandedConn) (int, error){
		"it is gone":            func([]HandedConn) (int, error) { return 0, errors.New("gone") },
		"it lacks the listener": nil,
	} {
		old := newRigOf(t, Options{Workers: 1, DrainTime: 20 * time.Second}, func(s *resource.Snapshot) { withCluster(s, "c", b) })
		p := dialPerson(t, old.addr)
		p.send(getHello)
		p.answer()
		asked := make(chan struct{}, 1000)
		handed := make(chan error, 1)
		go func() {
			handed <- old.p.HandOver(t.Context(), func(string) bool { asked <- struct{}{}; return give != nil }, give)
		}()
		<-asked
		p.send(getHello)
		if body, closes := p.answer(); body != "/hello" || !closes {
			t.Errorf("%s: %q, closes: %v", name, body, closes)
		}
		if err := <-handed; err != nil {
			t.Error(err)
		}
	}
}

func TestWithoutItsSuccessorAProcessAcceptsAgainAsLongAsItDrains(t *testing.T) {
	release := make(chan struct{})
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/slow" {
			<-release
		}
		_, _ = io.WriteString(w, q.URL.Path)
	})
	old := newRigOf(t, Options{Workers: 2, DrainTime: 20 * time.Second}, func(s *resource.Snapshot) { withCluster(s, "c", b) })
	slow, first := dialPerson(t, old.addr), dialPerson(t, old.addr)
	slow.send("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n")
	first.send(getHello)
	first.answer()
	left := make(chan struct{}, 1)
	handed := make(chan error, 1)
	go func() {
		handed <- old.p.HandOver(t.Context(), func(string) bool { return true }, func([]HandedConn) (int, error) {
			left <- struct{}{}
			return 0, errors.New("gone")
		})
	}()
	<-left
	waiting := dialPerson(t, old.addr) // nobody accepts
	waiting.send(getHello)
	old.p.AcceptAgain()
	if body, closes := waiting.answer(); body != "/hello" || !closes {
		t.Errorf("%q, closes: %v", body, closes)
	}
	close(release)
	if body, _ := slow.answer(); body != "/slow" {
		t.Errorf("%q", body)
	}
	if err := <-handed; err != nil {
		t.Error(err)
	}
}

// A rate of connections is for new ones: those that go over have paid.
func TestConnectionsThatGoOverAreNotChargedAgain(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, q.URL.Path) })
	old := newRigOf(t, Options{Workers: 1, DrainTime: 20 * time.Second}, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		s.Listeners["l"].FilterChains[0].RateLimits = []*resource.ConnectionRateLimit{{
			StatPrefix: "cx", Bucket: resource.TokenBucket{Max: 2, PerFill: 1, Interval: time.Hour},
			Enabled: resource.Percent{PerMillion: 1_000_000, Denominator: 1},
		}}
	})
	idle := []*person{dialPerson(t, old.addr), dialPerson(t, old.addr)}
	for _, p := range idle {
		p.send(getHello)
		p.answer()
	}
	next := succeed(t, old, 1)
	next.p.StartAccepting()
	err := old.p.HandOver(t.Context(), func(string) bool { return true }, func(list []HandedConn) (int, error) {
		next.p.AdoptOffLoop(list)
		return len(list), nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, p := range append(idle, dialPerson(t, old.addr), dialPerson(t, old.addr)) {
		p.send(getHello)
		if body, _ := p.answer(); body != "/hello" {
			t.Errorf("got %q", body)
		}
	}
}

func TestAddressesThatWereToldGoOverWithTheConnection(t *testing.T) {
	seen := make(chan string, 10)
	b := backend(t, func(w http.ResponseWriter, q *http.Request) {
		seen <- q.Header.Get("X-Forwarded-For")
		_, _ = io.WriteString(w, "ok")
	})
	old := newRigOf(t, Options{Workers: 1, DrainTime: 20 * time.Second}, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		l := s.Listeners["l"]
		l.Filters = []resource.ListenerFilter{{Kind: resource.ProxyProtocol}, {Kind: resource.HTTPInspector}}
		l.FilterChains[0].Match.PrefixRanges = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
		l.FilterChains[0].Match.ApplicationProtocols = []string{"http/1.1"}
		l.FilterChains[0].HTTP.UseRemoteAddress = true
	})
	p := dialPerson(t, old.addr)
	p.send("PROXY TCP4 192.0.2.7 10.1.2.3 1000 80\r\n" + getHello)
	p.answer()
	first := <-seen
	next := succeed(t, old, 1)
	next.p.StartAccepting()
	handed := make(chan error, 1)
	go func() {
		handed <- old.p.HandOver(t.Context(), func(string) bool { return true }, func(list []HandedConn) (int, error) {
			if h := list[0]; h.ToldLocal.String() != "10.1.2.3:80" || h.ToldRemote.String() != "192.0.2.7:1000" || h.Requests != 1 {
				t.Errorf("%+v", h)
			}
			next.p.AdoptOffLoop(list)
			return len(list), nil
		})
	}()
	if err := <-handed; err != nil {
		t.Error(err)
	}
	p.send(getHello)
	if body, closes := p.answer(); body != "ok" || closes {
		t.Errorf("%q, closes: %v", body, closes)
	}
	if again := <-seen; again != first || !strings.Contains(first, "192.0.2.7") {
		t.Errorf("from %q, before %q", again, first)
	}
}

// A drain of one side leaves the other open, and connections without a request stay as
// long as they may.
func TestEachSideDrainsByItselfAndInItsOwnTime(t *testing.T) {
	b := backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, q.URL.Path) })
	outbound := freeAddr(t)
	r := newRigOf(t, Options{Workers: 1, DrainTime: 20 * time.Second, DrainIdle: time.Hour}, func(s *resource.Snapshot) {
		withCluster(s, "c", b)
		s.Listeners["l"].Direction = resource.Inbound
		l := *s.Listeners["l"]
		ap := netip.MustParseAddrPort(outbound)
		l.Name, l.Direction, l.Addresses = "out", resource.Outbound, []resource.Address{{Host: ap.Addr().String(), Port: ap.Port()}}
		s.Listeners["out"] = &l
	})
	in, out := dialPerson(t, r.addr), dialPerson(t, outbound)
	for _, p := range []*person{in, out} {
		p.send(getHello)
		p.answer()
	}
	drained := make(chan error, 1)
	go func() { drained <- r.p.Drain(t.Context(), DrainInbound) }()
	r.until("the drain has begun", r.p.Draining)
	in.send(getHello) // it idled, and was not closed
	if _, closes := in.answer(); !closes {
		t.Error("the inbound connection was not told to close")
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	out.send(getHello)
	if _, closes := out.answer(); closes {
		t.Error("the outbound connection was told to close")
	}
	go func() { drained <- r.p.Drain(t.Context(), DrainOutbound) }()
	for closes := false; !closes; {
		out.send(getHello)
		_, closes = out.answer()
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}
