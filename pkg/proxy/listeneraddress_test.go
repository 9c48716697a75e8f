// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// at gives a listener a name and an address; its answers say the name.
func at(s *resource.Snapshot, name, addr string) {
	l := *s.Listeners["l"]
	ap := netip.MustParseAddrPort(addr)
	l.Name, l.Addresses = name, []resource.Address{{Host: ap.Addr().String(), Port: ap.Port()}}
	m := *l.FilterChains[0].HTTP
	m.RouteConfigName, m.Routes = "", &resource.RouteConfig{Name: name, VirtualHosts: []*resource.VirtualHost{{
		Name: name, Domains: []string{"*"}, Routes: []*resource.Route{{
			Match: resource.RouteMatch{Kind: resource.PathPrefix, Path: "/"}, Direct: &resource.DirectResponse{Status: 200, Body: []byte(name)},
		}},
	}}}
	l.FilterChains = []*resource.FilterChain{{Name: "main", HTTP: &m}}
	s.Listeners[name] = &l
}

// answers asks on a connection of its own.
func answers(t *testing.T, addr string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	a, err := c.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestListenersTakeOverEachOthersAddresses(t *testing.T) {
	one, two := freeAddr(t), freeAddr(t)
	r := newRig(t, func(s *resource.Snapshot) { at(s, "a", one); at(s, "b", two) })
	want := func(step, onOne, onTwo string) {
		t.Helper()
		if a, b := answers(t, one), answers(t, two); a != onOne || b != onTwo {
			t.Errorf("%s: %q and %q answer, want %q and %q", step, a, b, onOne, onTwo)
		}
	}
	want("at first", "a", "b")
	for range 3 {
		at(r.snap, "a", two)
		at(r.snap, "b", one)
		r.apply(r.snap)
		want("swapped", "b", "a")
		at(r.snap, "a", one)
		at(r.snap, "b", two)
		r.apply(r.snap)
		want("swapped back", "a", "b")
	}
	delete(r.snap.Listeners, "a")
	at(r.snap, "c", one)
	r.apply(r.snap)
	want("renamed", "c", "b")
}

func TestAnAddressHasOneListener(t *testing.T) {
	one := freeAddr(t)
	r := newRig(t, func(s *resource.Snapshot) { at(s, "m", one) })
	for _, name := range []string{"a", "z"} {
		at(r.snap, name, one)
		r.snap.Version++
		err := r.p.Apply(frozen(r.snap))
		if err == nil || !strings.Contains(err.Error(), `listener "`+name+`": address `+one+` is that of listener "m"`) {
			t.Errorf("%s: got error %v", name, err)
		}
		if got := answers(t, one); got != "m" {
			t.Errorf("%s: %q answers", name, got)
		}
		delete(r.snap.Listeners, name)
	}
}
