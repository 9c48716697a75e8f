// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// D12: one hostile connection of HTTP/2 after the other, of every kind, beside
// clients that behave: none of their requests fails. How long those take is shown,
// and is no condition: the attacker computes on the same machine, and so does the
// control, as much but without an attack.
func TestD12AHostileConnectionCostsOthersNoRequest(t *testing.T) {
	p := start(t, target{Upstream: hostile(t, answerOrHold), Secure: true})
	p.warm(true)
	const quiet, attacked = 2 * time.Second, 6 * time.Second
	rest := p.cpu()
	sent, alone := p.clients(quiet)
	resting := (p.cpu() - rest).Seconds() / quiet.Seconds()
	stop, over := make(chan struct{}), make(chan int)
	rest = p.cpu()
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				over <- n
				return
			default:
			}
			if _, err := p.flood(floods[n%len(floods)], true); err != nil {
				t.Errorf("%s: %v", floods[n%len(floods)].name, err)
			}
		}
	}()
	beside, busy := p.clients(attacked)
	close(stop)
	attacks := <-over
	burnt := (p.cpu()-rest).Seconds()/attacked.Seconds() - resting
	end := burn(burnt)
	_, control := p.clients(quiet)
	end()
	if n := p.stat("outrigger.http2.flood_total"); n == 0 || attacks == 0 {
		t.Errorf("%d attacks, %d counted", attacks, n)
	}
	t.Logf("%d requests without one failed beside %d attacks (%d before); p50 %v and p99 %v, beside as much computing (%.2f cores) %v and %v, alone %v and %v",
		beside, attacks, sent, busy(50), busy(99), burnt, control(50), control(99), alone(50), alone(99))
}

// cpu is the processor time of the sidecar and of this process, which attacks it.
func (p *proxy) cpu() time.Duration {
	var self syscall.Rusage
	must(p.t, syscall.Getrusage(syscall.RUSAGE_SELF, &self))
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	must(p.t, err)
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	ticks := time.Duration(0)
	for _, f := range fields[11:13] { // user and system, in hundredths of a second; proc(5)
		n, _ := strconv.Atoi(f)
		ticks += time.Duration(n)
	}
	return ticks*10*time.Millisecond + time.Duration(self.Utime.Nano()+self.Stime.Nano())
}

// burn computes for nothing, so many cores' worth, until it is told to end.
func burn(cores float64) (end func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for ; cores > 0; cores-- {
		const slice = 10 * time.Millisecond
		share := time.Duration(min(cores, 1) * float64(slice))
		wg.Go(func() {
			tick := time.NewTicker(slice)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				for began := time.Now(); time.Since(began) < share; {
				}
			}
		})
	}
	return func() { close(stop); wg.Wait() }
}

// clients sends 400 requests a second for a while, half of them to the upstream, and
// returns how many there were and what share took no longer than how long.
func (p *proxy) clients(d time.Duration) (sent int, percentile func(int) time.Duration) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var took []time.Duration
	var failed []string
	until := time.Now().Add(d)
	for i := range 8 {
		c, path := p.client(true), []string{"/direct", "/x"}[i%2]
		wg.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for time.Now().Before(until) {
				<-tick.C
				began := time.Now()
				err := once(c, p.origin(true)+path)
				mu.Lock()
				took = append(took, time.Since(began))
				if err != nil {
					failed = append(failed, err.Error())
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	if len(failed) > 0 || len(took) == 0 {
		p.t.Errorf("%d of %d requests failed: %.300q", len(failed), len(took), failed)
	}
	return len(took), func(n int) time.Duration { return took[len(took)*n/100].Round(10 * time.Microsecond) }
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
