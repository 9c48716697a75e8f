// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/ratelimit"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// TimeoutSettings are how long parts of the request may take, in milliseconds; what is
// absent has no limit. With what the request asks for itself by headers.
type TimeoutSettings struct {
	Request     int64 `json:"requestMillis,omitempty"` // from its end to the end of the answer
	PerTry      int64 `json:"perTryMillis,omitempty"`  // of each attempt, until its answer begins
	PerTryIdle  int64 `json:"perTryIdleMillis,omitempty"`
	Deadline    int64 `json:"deadlineMillis,omitempty"` // of a call of gRPC, from its beginning
	Idle        int64 `json:"idleMillis,omitempty"`
	MaxDuration int64 `json:"maxDurationMillis,omitempty"`
	Connect     int64 `json:"connectMillis,omitempty"` // of a cluster
}

// RetrySettings are the retries that the route's policy allows.
type RetrySettings struct {
	On          []string `json:"retryOn"` // conditions by Envoy's names
	NumRetries  int      `json:"numRetries"`
	StatusCodes []int    `json:"retriableStatusCodes,omitempty"`
	BackOff     int64    `json:"backOffMillis"` // the base, and the longest
	MaxBackOff  int64    `json:"maxBackOffMillis"`
	MaxBody     int      `json:"maxBodyBytes"` // longer bodies are not sent again
}

// ConnectSettings are the retries of a connection that is passed on.
type ConnectSettings struct {
	Attempts int `json:"maxConnectAttempts"`
}

// HedgeSettings are those of attempts beside one that goes on.
type HedgeSettings struct {
	After int64 `json:"afterMillis"`
	Most  int   `json:"numHedges"` // in all, retries included
}

// SessionSettings say what of the request names its endpoint.
type SessionSettings struct {
	By     string `json:"by"`
	Strict bool   `json:"strict"` // or it fails
}

// rule adds what governs the request.
func (x *explainer) rule(stage, name string, settings any, reason string) {
	x.out.Steps = append(x.out.Steps, ExplainStep{stage, name, reason, settings})
}

// asExchange is the request as the data path would have it behind the route: an exchange
// of no worker, for those of its methods that need none. What only trusted peers may ask
// for counts, as for every client on this host; x-forwarded-for makes it another's.
func (x *explainer) asExchange(m *manager, r *route) *exchange {
	e := &exchange{w: &worker{}, manager: m, route: r}
	e.Request.CopyFrom(&x.head) // what is read of it is removed
	if x.head.HasKnown(codec.NameXForwardedFor) {
		e.askedRetries()
		for _, name := range untrusted {
			if e.Request.HasKnown(name) {
				e.Request.RemoveKnown(name)
			}
		}
	}
	e.initRetry()
	e.readTimeouts()
	return e
}

// governed adds what governs a request of the route, whatever its cluster.
func (x *explainer) governed(m *manager, r *route) {
	e, name := x.asExchange(m, r), cmp.Or(r.res.Name, "unnamed")
	x.high, x.retries = r.action.res.HighPriority, e.retry.on != 0
	x.timeouts(e, name)
	x.retried(e, name)
	if hedges := e.retry.hedge && e.retry.perTry > 0; hedges {
		x.rule("hedging", name, HedgeSettings{millis(e.retry.perTry), e.retry.max}, fmt.Sprintf("another attempt beside the one under way after %v, %d at most", e.retry.perTry, e.retry.max))
	} else if e.retry.hedge {
		x.rule("hedging", name, HedgeSettings{}, "none: there is no timeout of a try")
	}
	x.filters(m, r)
}

func (x *explainer) timeouts(e *exchange, name string) {
	a := e.route.action.res
	idle := e.manager.res.StreamIdleTimeout
	if a.HasIdleTimeout {
		idle = a.IdleTimeout
	}
	perTryIdle := time.Duration(0)
	if p := e.route.action.retry; p != nil {
		perTryIdle = p.PerTryIdleTimeout
	}
	deadline, longest := time.Duration(e.call.deadline), e.maxDuration()
	var words []string
	for _, w := range []struct {
		d    time.Duration
		text string
	}{
		{e.retry.timeout, "%v in all"}, {deadline, "%v in all, as a call of gRPC"}, {e.retry.perTry, "%v for each try"},
		{perTryIdle, "%v of silence in a try"}, {idle, "%v of silence"}, {longest, "%v from begin to end"},
	} {
		if w.d > 0 {
			words = append(words, fmt.Sprintf(w.text, w.d))
		}
	}
	if e.retry.timeout <= 0 && deadline <= 0 {
		words = slices.Insert(words, 0, "no limit in all")
	}
	x.rule("timeouts", name, TimeoutSettings{
		Request: millis(e.retry.timeout), Deadline: millis(deadline), PerTry: millis(e.retry.perTry), PerTryIdle: millis(perTryIdle),
		Idle: millis(idle), MaxDuration: millis(longest),
	}, strings.Join(words, ", "))
}

// safeRetry is what needs no policy, see exchange.tryAgain.
const safeRetry = "once more what surely was not processed, or is idempotent and had no answer"

func (x *explainer) retried(e *exchange, name string) {
	p, on := e.route.action.retry, e.retry.on
	s := RetrySettings{On: on.Words(), NumRetries: e.retry.max, MaxBody: e.route.action.buffer}
	if on == 0 || e.retry.max == 0 {
		why := "by policy none"
		if p != nil && p.On != 0 && len(p.RequestHeaders) > 0 && on == 0 {
			why = "none by the policy, which asks for headers that the request has not"
		}
		x.retries, s.NumRetries = false, 0
		x.rule("retries", name, s, why+"; "+safeRetry)
		return
	}
	base, longest := backOffOf(p)
	s.BackOff, s.MaxBackOff = millis(base), millis(longest)
	text := fmt.Sprintf("up to %d on %s", e.retry.max, strings.Join(s.On, ", "))
	if on&resource.RetryStatusCodes != 0 {
		if p != nil {
			s.StatusCodes = slices.Clone(p.StatusCodes)
		}
		for _, c := range e.retry.codes {
			if c != 0 {
				s.StatusCodes = append(s.StatusCodes, c)
			}
		}
		text += fmt.Sprintf(" %v", s.StatusCodes)
	}
	text += fmt.Sprintf(", after up to %v at first and %v at most, of bodies up to %d bytes", base, longest, s.MaxBody)
	x.rule("retries", name, s, text+"; "+safeRetry)
}

// filters adds what the filters of the chain say of the request.
func (x *explainer) filters(m *manager, r *route) {
	i := 0
	for _, f := range m.res.Filters {
		if f.Disabled {
			continue
		}
		if spec := x.p.options.Filters.Lookup(f.TypeURL); !f.Missing && (spec == nil || spec.New == nil) {
			continue // a marker: see compileFilters
		}
		if i >= len(m.filters[0]) {
			return
		}
		hook := m.filters[0][i].request
		i++
		of, ok := hook.(filter.Explainer)
		if !ok {
			continue
		}
		for _, s := range settingsOf(&f, r) {
			for _, e := range of.Explain(&filter.Explained{Head: &x.head, Setting: s.setting, Cluster: s.cluster, Now: x.now}) {
				reason := e.Reason
				if s.apart {
					reason = "of what goes to " + s.cluster + ": " + reason
				}
				x.rule(e.Stage, f.Name, e.Settings, reason)
			}
		}
	}
}

// filterSetting is what a filter goes by for a cluster of the route.
type filterSetting struct {
	setting any    // nil: its own
	cluster string // "" where a header names it
	apart   bool   // for this cluster alone
}

// settingsOf are those of a filter for a request of the route: one for each cluster that
// has its own, and one for the others.
func settingsOf(f *resource.HTTPFilter, r *route) (list []filterSetting) {
	whole := r.res.FilterConfig[f.Name]
	clusters := r.action.clusters
	rest := ""
	for i := range clusters {
		w := clusters[i].res
		switch own := w.FilterConfig[f.Name]; {
		case own != nil:
			list = append(list, filterSetting{own, w.Name, len(clusters) > 1})
		case rest == "":
			rest = w.Name
		}
	}
	if len(list) < len(clusters) || len(clusters) == 0 {
		list = append(list, filterSetting{whole, rest, false})
	}
	return list
}

// connections adds what bounds the connections of a filter chain.
func (x *explainer) connections(ch *chain) {
	name := cmp.Or(ch.name, "unnamed")
	if most := ch.limit.Load(); most > 0 {
		used := max(ch.active.Load(), 0)
		x.rule("limits", name, map[string]any{"connections": map[string]uint64{"used": uint64(used), "max": uint64(most)}}, fmt.Sprintf("connections of clients %d of %d", used, most))
	}
	if rates := ch.rates.Load(); rates != nil {
		for i := range *rates {
			c := &(*rates)[i]
			if x.p.runtimePercent(c.res.Enabled) == 0 {
				continue
			}
			u := ratelimit.Config(c.res.Bucket).Use(c.bucket, x.now)
			x.rule("rate limit", name, u, "connections "+u.String()+"; more are closed")
		}
	}
}

func millis(d time.Duration) int64 { return max(d, 0).Milliseconds() }
