// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/internal/launch"
)

// D12: hostile connections of HTTP/2 of every kind, one after the other and four at a
// time, from one source, whose connections are delayed, and from many, beside clients that
// behave: none of their requests fails. How long those take
// is shown, and is no condition.
//
// What is shown is to be the sidecar's doing: it has a CPU of its own, and the
// attacker has what the clients and the upstream leave of another. Slices with and
// without an attack take turns, so that what else the machine does is in all of them;
// what the attacker's traffic does to the clients' CPU is seen in requests to the
// upstream that pass no sidecar.
func TestD12AHostileConnectionCostsOthersNoRequest(t *testing.T) {
	const turns, slice = 5, 1500 * time.Millisecond
	const many = 1000 // sources, none of which floods again soon
	own, rest := apart(t)
	l := launch.New()
	t.Cleanup(l.Close)
	upstream := hostile(t, answerOrHold)
	p := start(t, target{
		Upstream: upstream, Secure: true,
		Launch: func(cmd *exec.Cmd) error { return l.Start(cmd, syscall.SIGKILL, on(own)) },
	})
	moveTo(t, rest)
	attacker := p.startAttacker(l, on(rest), idle)
	p.warm(true)
	clients, past := p.newClients(), p.newClientsOf(upstream)
	both := func() (all, own, direct sample) {
		var wg sync.WaitGroup
		wg.Go(func() { direct, _ = past.run(slice) })
		all, own = clients.run(slice)
		wg.Wait()
		return all, own, direct
	}
	both() // connects
	open := p.stat("http.main.downstream_cx_active")
	var alone, ownAlone, pastAlone sample
	beside := []*siege{{connections: 1, sources: 1}, {connections: 4, sources: 1}, {connections: 1, sources: many}, {connections: 4, sources: many}}
	for range turns {
		quiet, quietOwn, direct := both()
		alone, ownAlone, pastAlone = append(alone, quiet...), append(ownAlone, quietOwn...), append(pastAlone, direct...)
		line := fmt.Sprintf("p50 and p99 alone %v and %v", quiet.at(50), quiet.at(99))
		for _, s := range beside {
			counted := p.stat("outrigger.http2.flood_total")
			attacker.begin(s.connections, s.sources)
			began, used := time.Now(), p.cpu()
			loud, own, direct := both()
			s.took, s.used = s.took+time.Since(began), s.used+p.cpu()-used
			s.did.add(attacker.end())
			s.sample, s.own, s.past = append(s.sample, loud...), append(s.own, own...), append(s.past, direct...)
			s.middles, s.tails = append(s.middles, loud.ratio(quiet, 50)), append(s.tails, loud.ratio(quiet, 99))
			line += fmt.Sprintf(", beside %d hostile of %d sources %v and %v", s.connections, s.sources, loud.at(50), loud.at(99))
			eventually(t, "nothing of the attack is left", func() bool { return p.stat("http.main.downstream_cx_active") <= open })
			if p.stat("outrigger.http2.flood_total") == counted {
				t.Error("no attack was counted")
			}
		}
		t.Log(line)
	}
	for _, s := range beside {
		t.Logf("%d at a time from %d sources: %.0f attacks, %.0f frames, %.1f MB a second; sidecar %.2f cores", s.connections, s.sources,
			s.rate(s.did.attacks), s.rate(s.did.frames), s.rate(s.did.bytes)/1e6, s.used.Seconds()/s.took.Seconds())
	}
	requests, text := 0, ""
	for _, s := range beside {
		requests += len(s.sample)
		text += fmt.Sprintf("; beside %d at a time from %d sources (%.0f attacks/s, %.0f MB/s) %s: %s (until at the socket %s; past the sidecar %s)",
			s.connections, s.sources, s.rate(s.did.attacks), s.rate(s.did.bytes)/1e6, s.sample, s.ratios(), s.own, s.past)
	}
	t.Logf("none of %d requests failed; p50/p99 alone %s (its own answers until they are at the client's socket %s; past the sidecar %s)%s",
		requests, alone, ownAlone, pastAlone, text)
}

// siege is what there was beside so many hostile connections at a time.
type siege struct {
	sources        int // addresses that the connections come from by turns
	connections    int
	did            assault
	took, used     time.Duration // used: of the sidecar's CPU
	sample         sample
	own            sample    // of what the sidecar answers itself, until it is at the client's socket: without what shares the clients' CPU
	past           sample    // of requests that pass no sidecar
	middles, tails []float64 // p50 and p99 of a slice, each in terms of the one before without an attack
}

func (s *siege) rate(n int64) float64 { return float64(n) / s.took.Seconds() }

func (s *siege) ratios() string { return spread(s.middles) + ", " + spread(s.tails) }

// spread is the median of ratios, with the least and the greatest.
func spread(r []float64) string {
	slices.Sort(r)
	return fmt.Sprintf("×%.1f (%.1f–%.1f)", r[len(r)/2], r[0], r[len(r)-1])
}

// clients are some that behave, each with a connection of its own.
type clients struct {
	p    *proxy
	each [8]*http.Client
	conn [8]func() *stamped // of those whose answers are stamped
	urls [2]string          // by turns
}

func (p *proxy) newClients() *clients {
	c := &clients{p: p, urls: [2]string{p.origin(true) + "/direct", p.origin(true) + "/x"}}
	for i := range c.each {
		c.each[i] = p.client(true)
		if i%2 == 0 {
			c.conn[i] = stampedBy(p.t, c.each[i])
		}
	}
	return c
}

// newClientsOf makes clients of the upstream itself.
func (p *proxy) newClientsOf(upstream string) *clients {
	c := &clients{p: p, urls: [2]string{"http://" + upstream + "/x", "http://" + upstream + "/x"}}
	for i := range c.each {
		tr := &http.Transport{}
		p.t.Cleanup(tr.CloseIdleConnections)
		c.each[i] = &http.Client{Transport: tr, Timeout: calm}
	}
	return c
}

// sample is how long requests took.
type sample []time.Duration

// at is what n in a hundred took no longer than.
func (s sample) at(n int) time.Duration {
	s = slices.Clone(s)
	slices.Sort(s)
	return s[len(s)*n/100].Round(10 * time.Microsecond)
}

func (s sample) String() string { return fmt.Sprintf("%v/%v", s.at(50), s.at(99)) }

func (s sample) ratio(to sample, n int) float64 { return float64(s.at(n)) / float64(to.at(n)) }

// run sends 400 requests a second for a while. own is how long it was until the answers of
// those clients whose answers are stamped had arrived.
func (c *clients) run(d time.Duration) (all, own sample) {
	const interval = 20 * time.Millisecond
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed []string
	began := time.Now()
	for i, client := range c.each {
		url := c.urls[i%2]
		wg.Go(func() {
			<-time.After(interval * time.Duration(i) / time.Duration(len(c.each))) // not all at once
			tick := time.NewTicker(interval)
			defer tick.Stop()
			for time.Since(began) < d {
				<-tick.C
				began := time.Now()
				err := once(client, url)
				mu.Lock()
				all = append(all, time.Since(began))
				if c.conn[i] != nil {
					own = append(own, c.conn[i]().took())
				}
				if err != nil {
					failed = append(failed, err.Error())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(failed) > 0 {
		c.p.t.Errorf("%d of %d requests failed: %.300q", len(failed), len(all), failed)
	}
	return all, own
}

func once(c *http.Client, url string) error {
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %v", resp.Status, err)
	}
	return nil
}
