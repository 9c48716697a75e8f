// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/record"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

// replace puts another configuration in the place of the one that r began under.
func (r *running) replace(config string) {
	r.c.t.Helper()
	var by filter.ConnectionFilter
	if config != "" {
		spec := Spec(r.c.hub).Connection
		parsed, err := spec.Parse([]byte(config))
		if err != nil {
			r.c.t.Fatal(err)
		}
		by = spec.New(parsed, filter.Worker{})
	}
	if !r.o.OnReplaced(by, 1767323047e9) {
		r.o = nil
	}
}

func TestAConnectionWhoseTapIsTakenAwayLeavesNoRecordAndNoMemory(t *testing.T) {
	const budget = 128 << 10
	const taps = `{"taps":[{"name":"all","capture":{"requestBodyBytes":16384,"responseBodyBytes":16384},"expiresUnixMs":1767323048000}]}`
	for _, next := range []string{"", `{}`, strings.Replace(taps, "all", "other", 1), strings.Replace(taps, `}]}`, `,"redact":{"patterns":["iban"]}}]}`, 1), strings.Replace(taps, "16384", "16383", 1)} {
		h := newConnections(t, tap.HubConfig{BodyBudget: budget}, taps)
		ended := h.begin(nil)
		ended.pass(true, "of a connection that has ended", 100)
		r, looking := h.begin(nil), h.begin(nil)
		ended.end(0, "")
		r.pass(false, strings.Repeat("0123456789abcdef", 1<<10), 1000)
		r.pass(true, strings.Repeat("0123456789abcdef", 1<<10), 1000)
		looking.pass(false, hello(t, "x")[:20], 20)
		c := r.o.(*connection)
		r.replace(next)
		looking.replace(next)
		if r.o != nil || looking.o != nil {
			t.Errorf("followed on under %s", next)
		}
		if cap(c.req.data)+cap(c.resp.data) != 0 || len(h.f.free) != 0 {
			t.Errorf("%d and %d bytes are held, %d are free", cap(c.req.data), cap(c.resp.data), len(h.f.free))
		}
		if !h.hub.Ring(0).Reserve(budget) {
			t.Error("a part of the budget was not given back")
		}
		if got := h.records(); len(got) != 1 || string(got[0].ResponseBody) != "of a connection that has ended" {
			t.Errorf("recorded %+v", got)
		}
	}
}

// Taps that stay, and those whose time was over before they went, record the connection
// at its end, with what they asked for.
func TestTheOtherTapsOfAConnectionGoOn(t *testing.T) {
	const budget = 128 << 10
	const (
		stays   = `{"name":"stays","match":{"peers":["spiffe://m/web"]},"capture":{"requestBodyBytes":100},"redact":{"patterns":["iban","payment-card"]}}`
		expired = `{"name":"expired","expiresUnixMs":1767323046000,"capture":{"responseBodyBytes":5}}`
		goes    = `{"name":"goes","capture":{"requestBodyBytes":5000,"responseBodyBytes":5000},"expiresUnixMs":1767323048000}`
	)
	h := newConnections(t, tap.HubConfig{BodyBudget: budget}, `{"taps":[`+goes+","+stays+","+expired+`]}`)
	r := h.begin(&record.Security{PeerURI: "spiffe://m/web"})
	r.pass(false, strings.Repeat("a question ", 300), 100)
	r.pass(true, strings.Repeat("answer", 300), 100)
	c := r.o.(*connection)
	r.replace(`{"taps":[{"name":"first"},` + stays + `]}`)
	if r.o == nil {
		t.Fatal("nobody follows it any more")
	}
	if held := cap(c.req.data) + cap(c.resp.data); held != 100+5 || held != c.req.reserved+c.resp.reserved {
		t.Errorf("%d bytes are held, and %d of the budget", held, c.req.reserved+c.resp.reserved)
	}
	r.pass(false, "more", 4)
	r.pass(true, "more", 4)
	if r.wants != [2]bool{} {
		t.Errorf("wants more: %v", r.wants)
	}
	r.replace(`{"taps":[` + stays + `]}`)
	r.end(0, "")
	if !h.hub.Ring(0).Reserve(budget) {
		t.Error("a part of the budget was not given back")
	}
	var got []string
	for _, x := range h.records() {
		got = append(got, x.Tap, string(x.RequestBody[:min(10, len(x.RequestBody))]), string(x.ResponseBody))
	}
	if want := "stays,a question,,expired,,answe"; strings.Join(got, ",") != want {
		t.Errorf("recorded %q, want %q", got, want)
	}
}
