// SPDX-License-Identifier: Apache-2.0

package breaker

import (
	"math"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// hostRates are the tallies of one host, a loop each.
type hostRates struct {
	tallies []*Tally
	// Of the interval that has ended last.
	sum [origins]rate
	// Share of successes in percent, -1 where too few requests were seen.
	percent [origins]float64
	seen    bool
}

// ClusterRates are what success rates were judged by at the end of the last
// interval, in percent; -1 where there was too little to judge.
type ClusterRates struct{ Average, Threshold float64 }

// unjudged is what rates are where there is nothing to judge.
var unjudged = ClusterRates{-1, -1}

// SuccessRates are the host's at the end of the last interval, of responses and of
// local origin: percent, -1 where too few requests were seen.
func (o *Outlier) SuccessRates(h Host) (external, local float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r := o.rates[h]; r != nil {
		return r.percent[0], r.percent[1]
	}
	return -1, -1
}

// ClusterRates are those of responses and of local origin.
func (o *Outlier) ClusterRates() (external, local ClusterRates) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.judged[0], o.judged[1]
}

// meet takes over the tallies that loops have made since.
func (o *Outlier) meet() {
	for t := o.tallies.Swap(nil); t != nil; {
		next := t.next
		t.next = nil
		r := o.rates[t.host]
		if r == nil {
			r = &hostRates{percent: [origins]float64{-1, -1}}
			o.rates[t.host] = r
		}
		r.tallies = append(r.tallies, t)
		t = next
	}
}

// count sums what the interval has seen of each host, and forgets hosts that have
// left the cluster.
func (o *detector) count() {
	o.members.Each(func(h Host) {
		if r := o.rates[h]; r != nil {
			r.seen = true
		}
	})
	for h, r := range o.rates {
		if !r.seen {
			delete(o.rates, h)
			continue
		}
		r.seen = false
		for origin := range origins {
			r.sum[origin], r.percent[origin] = rate{}, -1
			for _, t := range r.tallies {
				d := t.since(origin)
				r.sum[origin].success += d.success
				r.sum[origin].failure += d.failure
			}
		}
	}
}

// judge ejects by the rates of the interval that has ended, and returns how many.
func (o *detector) judge(hosts int, now int64) (ejected int) {
	c := o.cfg
	ejected = o.judgeOrigin(external, hosts, now, SuccessRate, FailurePercentage)
	if c.SplitLocal {
		ejected += o.judgeOrigin(localOrigin, hosts, now, SuccessRateLocal, FailurePercentageLocal)
	} else {
		o.judged[localOrigin] = unjudged
	}
	return ejected
}

// judgeOrigin first looks for those that succeed more rarely than the others, then
// for those that fail too often.
func (o *detector) judgeOrigin(origin, hosts int, now int64, byRate, byShare EjectionType) (ejected int) {
	c := o.cfg
	o.judged[origin] = unjudged
	if hosts < int(c.SuccessRate.MinHosts) && hosts < int(c.Failure.MinHosts) {
		return 0
	}
	rated, shared := o.withVolume(origin, c.SuccessRate.Volume), o.withVolume(origin, c.Failure.Volume)
	if len(rated) > 0 && len(rated) >= int(c.SuccessRate.MinHosts) {
		j := spread(rated, c.SuccessRate)
		o.judged[origin] = j
		for _, r := range rated {
			if r.percent < j.Threshold && o.outlier(r, byRate, hosts, now) {
				ejected++
			}
		}
	}
	if len(shared) > 0 && len(shared) >= int(c.Failure.MinHosts) {
		for _, r := range shared {
			if 100-r.percent >= float64(c.Failure.Threshold) && o.outlier(r, byShare, hosts, now) {
				ejected++
			}
		}
	}
	return ejected
}

// rated is a host with enough requests.
type rated struct {
	host    Host
	percent float64
}

// withVolume lists the hosts in service that had that many requests, in the order
// of the cluster, so that who is ejected first does not depend on chance.
func (o *detector) withVolume(origin int, volume uint32) (list []rated) {
	o.members.Each(func(h Host) {
		r := o.rates[h]
		if r == nil || h.Ejected() || r.sum[origin].volume() < max(uint64(volume), 1) {
			return
		}
		r.percent[origin] = r.sum[origin].percent()
		list = append(list, rated{h, r.percent[origin]})
	})
	return list
}

// spread is the mean of the rates and what is too far below it.
func spread(list []rated, c resource.SuccessRate) ClusterRates {
	n := float64(len(list))
	var sum, squares float64
	for _, r := range list {
		sum += r.percent
	}
	mean := sum / n
	for _, r := range list {
		squares += (r.percent - mean) * (r.percent - mean)
	}
	return ClusterRates{mean, mean - c.Stdev*math.Sqrt(squares/n)}
}

// outlier ejects the host, if it may be.
func (o *detector) outlier(r rated, t EjectionType, hosts int, now int64) bool {
	o.stats.Detected[t]++
	if r.host.Ejected() {
		return false // by its success rate, a moment ago; Envoy would eject it twice
	}
	return o.eject(r.host, t, r.percent, hosts, now)
}

// retryAt is when the host wants to be asked again, as the loops have heard.
func (o *detector) retryAt(h Host) (at int64) {
	if r := o.rates[h]; r != nil && o.cfg.RetryAfter {
		for _, t := range r.tallies {
			at = max(at, t.retryAt.Load())
		}
	}
	return at
}
