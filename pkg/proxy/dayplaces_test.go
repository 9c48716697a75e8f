// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// Where requests of a day may go. An endpoint gets a request of a route only if, at some
// time since the request began,
//
//   - its cluster was one that the route or a fallback names, and it was in the assignment;
//   - it was of the subset that the route's labels ask for, or of the fallback's where
//     there was no such subset (docs/limits.md, lb_subset_config);
//   - it was neither unhealthy nor draining, had not failed its checks and was not
//     ejected, unless the cluster may ignore health (healthy_panic_threshold above 0);
//   - it was of priority 0, unless less than all of the load was to go there, by 140 % of
//     the healthy share;
//   - it was the one that the client's session names: the only one where the session is
//     strict, and otherwise the one as long as it may have requests.
//
// What endpoints have, and what they are, changes meanwhile. All of it is reckoned here,
// of the configuration and the marks of hosts, not of the views that picks work on.

// dayPlaces is a cluster as it was from some time on.
type dayPlaces struct {
	at         time.Duration
	cluster    *resource.Cluster // nil: it was removed
	assignment *resource.Assignment
}

// labelsOf are the values of the label that subsets go by.
var labelsOf = []string{"a", "b"}

const subsetKey = "version"

func wantsLabel(value string) *resource.MetadataMatch {
	return &resource.MetadataMatch{Labels: []resource.Label{resource.TextLabel(subsetKey, value)}}
}

// drawSubsets draws how a cluster is divided; nil: not.
func drawSubsets(rng *rand.Rand) *resource.Subsets {
	if maybe(rng, 1, 2) {
		return nil
	}
	s := &resource.Subsets{
		Fallback: one(rng, resource.SubsetAny, resource.SubsetAny, resource.SubsetDefault, resource.SubsetNoFallback), Default: []resource.Label{resource.TextLabel(subsetKey, "a")},
		Selectors: []resource.SubsetSelector{{Keys: []string{subsetKey}, Fallback: one(rng, resource.SubsetInherit, resource.SubsetInherit, resource.SubsetAny, resource.SubsetNoFallback, resource.SubsetDefault)}},
	}
	s.LocalityWeightAware, s.PanicModeAny = maybe(rng, 1, 3), maybe(rng, 1, 3)
	return s
}

// remember keeps what has come into service.
func (d *day) remember() {
	for _, name := range append(d.plan.clusters, "m") {
		now := dayPlaces{d.world.Now(), d.snap.Clusters[name], d.snap.Assignments[name]}
		if l := d.places[name]; len(l) == 0 || l[len(l)-1].cluster != now.cluster || l[len(l)-1].assignment != now.assignment {
			d.places[name] = append(l, now)
		}
	}
}

// forgetPlaces drops what no request has met.
func (d *day) forgetPlaces() {
	for name, l := range d.places {
		d.places[name] = slices.Clone(l[len(l)-1:])
	}
}

// since are the states of a cluster from then on.
func (d *day) since(name string, then time.Duration) []dayPlaces {
	l := d.places[name]
	for i := len(l) - 1; i > 0; i-- {
		if l[i].at < then {
			return l[i:]
		}
	}
	return l
}

func (p *dayPlaces) find(at netip.AddrPort) (e *resource.Endpoint, priority uint32) {
	if p.cluster == nil {
		return nil, 0
	}
	for i := range p.assignment.Localities {
		l := &p.assignment.Localities[i]
		for j := range l.Endpoints {
			if a := &l.Endpoints[j].Address; a.Port == at.Port() && a.Host == at.Addr().String() {
				return &l.Endpoints[j], l.Priority
			}
		}
	}
	return nil, 0
}

func hasLabel(e *resource.Endpoint, value string) bool {
	return e.Metadata[resource.LBNamespace][subsetKey] == value
}

// has reports whether an endpoint has the label.
func (p *dayPlaces) has(value string) bool {
	for i := range p.assignment.Localities {
		for j := range p.assignment.Localities[i].Endpoints {
			if hasLabel(&p.assignment.Localities[i].Endpoints[j], value) {
				return true
			}
		}
	}
	return false
}

// inSubset reports whether the endpoint may get requests of a route with the label, ""
// for none.
func (p *dayPlaces) inSubset(e *resource.Endpoint, label string) bool {
	s := p.cluster.LB.Subsets
	if s == nil {
		return true
	}
	fallback := s.Fallback
	if label != "" {
		if p.has(label) {
			return hasLabel(e, label)
		}
		if f := s.Selectors[0].Fallback; f != resource.SubsetInherit {
			fallback = f
		}
	}
	switch fallback {
	case resource.SubsetAny:
		return true
	case resource.SubsetDefault:
		return hasLabel(e, "a") || s.PanicModeAny
	}
	return s.PanicModeAny
}

func (p *dayPlaces) mayPanic() bool {
	return !p.cluster.LB.HasPanic || p.cluster.LB.PanicThreshold > 0
}

// forEver is a time that has not come.
const forEver = time.Duration(math.MaxInt64)

func sound(h resource.HealthStatus) bool {
	return h == resource.HealthUnknown || h == resource.Healthy || h == resource.Degraded
}

// look notes what hosts are: called before and after whatever changes that.
func (d *day) look() {
	now := d.world.Now()
	for _, i := range d.instances {
		i.marked = false
	}
	for name, c := range d.p.slots {
		s := c.spec.Load()
		if s == nil || name[0] == 't' {
			continue
		}
		states := d.places[name]
		if len(states) == 0 {
			continue
		}
		p := &states[len(states)-1]
		total, healthy := 0, 0
		for _, h := range s.lb.View().Hosts() {
			marked := h.Failed() || h.Ejected()
			if i := d.at[h.Addr()]; i != nil {
				i.marked = marked
			}
			if e, priority := p.find(h.Addr()); e != nil && priority == 0 {
				if total++; !marked && e.Health != resource.Degraded && sound(e.Health) {
					healthy++
				}
			}
		}
		if total == 0 || healthy*140 < total*100 {
			d.spilled[name] = forEver
		} else if d.spilled[name] == forEver {
			d.spilled[name] = now
		}
	}
	for _, i := range d.instances {
		if i.marked {
			i.markedAt = now
		} else {
			i.unmarkedAt = now
		}
	}
}

// maySpill reports whether a priority but the first may have had load since then.
func (d *day) maySpill(name string, then time.Duration) bool {
	at, ok := d.spilled[name]
	return !ok || at >= then
}

// mayCome judges whether a request may be at an instance.
func (r *dayRequest) mayCome(i *dayInstance) {
	d, a := r.c.d, i.addr.AddrPort
	label := r.route.label
	switch named, falls := r.goesTo(i.cluster); {
	case !named && !falls:
		d.fail("%s is at %s of cluster %s", r, a, i.cluster)
	case !named:
		label = "" // labels are of the route's cluster
	}
	var known, chosen, first, soundOnce, panics, retried bool
	if res := r.route.res; res != nil && res.Action.Retry != nil && res.Action.Retry.PreviousPriorities > 0 {
		retried = true
	}
	for _, p := range d.since(i.cluster, r.began) {
		e, priority := p.find(a)
		if e == nil {
			continue
		}
		known = true
		chosen = chosen || p.inSubset(e, label)
		first = first || priority == 0 || p.cluster.LB.Subsets != nil
		soundOnce = soundOnce || sound(e.Health)
		panics = panics || p.mayPanic()
	}
	switch {
	case !known:
		d.fail("%s is at %s, which has not been in cluster %s since it began", r, a, i.cluster)
	case r.session.IsValid():
		r.inSession(i)
	case !chosen:
		d.fail("%s is at %s, which is not of the subset %q:%s", r, a, label, d.describe(i.cluster, r.began))
	case !soundOnce && !panics:
		d.fail("%s is at %s, which is not healthy by its control plane", r, a)
	case i.marked && i.unmarkedAt < r.began && !panics:
		d.fail("%s is at %s, which has failed or was ejected at %v", r, a, i.unmarkedAt)
	case !first && !retried && !d.maySpill(i.cluster, r.began):
		d.fail("%s is at %s of a priority that has no load", r, a)
	}
}

// goesTo reports whether the route sends requests to the cluster, or the fallback of one
// that it sends them to does.
func (r *dayRequest) goesTo(name string) (named, falls bool) {
	for _, c := range r.route.res.Action.Clusters {
		if c.Name == name {
			return true, false
		}
	}
	for _, c := range r.route.res.Action.Clusters {
		for _, p := range r.c.d.since(c.Name, r.began) {
			if p.cluster != nil && p.cluster.Fallback != nil && p.cluster.Fallback.Cluster == name {
				return false, true
			}
		}
	}
	return false, false
}

// Sessions.

// drawSession draws how clients say at which endpoint their session is, and a route whose
// requests have one.
func (d *day) drawSession() (config []byte) {
	rng, p := d.rng, &d.plan
	p.sessionHeader, p.strict = "x-session", maybe(rng, 1, 2)
	state := message(1, []byte("type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState"), 2, message(1, []byte(p.sessionHeader)))
	if maybe(rng, 1, 2) {
		p.sessionHeader = ""
		state = message(1, []byte("type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"), 2, message(1, message(1, []byte("session"))))
	}
	config = message(1, message(1, []byte("session"), 2, state))
	if p.strict {
		config = append(config, 2<<3, 1)
	}
	return config
}

// message is one of protobuf with fields of bytes.
func message(fields ...any) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		v := fields[i+1].([]byte)
		b = append(append(b, byte(fields[i].(int)<<3|2), byte(len(v))), v...)
	}
	return b
}

// daySession is where a client's session is, as it was told.
type daySession struct {
	at    netip.AddrPort
	value string
}

// resume has the request belong to a session.
func (r *dayRequest) resume(h *codec.RequestHead) {
	d := r.c.d
	if r.route.prefix != "/session/" || len(d.sessions) == 0 || maybe(d.rng, 1, 4) {
		return
	}
	s := one(d.rng, d.sessions...)
	r.session = s.at
	if name := d.plan.sessionHeader; name != "" {
		h.AddString(name, s.value)
	} else {
		h.AddString("cookie", "other=1; session="+s.value)
	}
}

// inSession judges where a request of a session is.
func (r *dayRequest) inSession(i *dayInstance) {
	d, a := r.c.d, i.addr.AddrPort
	if a == r.session || i.cluster != r.route.res.Action.Clusters[0].Name {
		return // there, or with a fallback
	}
	if d.plan.strict {
		d.fail("%s is at %s, and its strict session at %s", r, a, r.session)
	}
	states := d.since(i.cluster, r.began)
	for _, p := range states {
		if e, _ := p.find(r.session); e == nil || !sound(e.Health) {
			return
		}
	}
	if s := d.at[r.session]; !s.marked && s.markedAt < r.began {
		r.astray = true
	}
}

// judgeSession judges a request that has gone astray by the number of its attempts: a
// session that is not strict is left by the second one.
func (r *dayRequest) judgeSession() {
	if r.astray && r.records == 1 && r.recorded.Attempts == 1 {
		r.c.d.fail("%s has left its session at %s, which may have it", r, r.session)
	}
}

// told takes where the session is by the answer of an instance at a.
func (r *dayRequest) told(h *codec.ResponseHead, a string) {
	d := r.c.d
	if r.route.prefix != "/session/" || !d.plan.sessions {
		return
	}
	var value []byte
	if name := d.plan.sessionHeader; name != "" {
		value = h.Get(name)
	} else if v, ok := bytes.CutPrefix(h.Get("set-cookie"), []byte(`session="`)); ok {
		value, _, _ = bytes.Cut(v, []byte(`"`))
	}
	at := netip.MustParseAddrPort(a)
	switch raw, err := base64.StdEncoding.DecodeString(string(value)); {
	case value == nil:
		if at != r.session && !d.clusterFallsBack(r) {
			d.fail("%s is not told of the session that it has at %s", r, a)
		}
	case err != nil || !bytes.Contains(raw, []byte(a)):
		d.fail("%s has a session at %q, its answer came from %s", r, raw, a)
	case len(d.sessions) < 8:
		d.sessions = append(d.sessions, daySession{at, string(value)})
	default:
		d.sessions[d.rng.IntN(8)] = daySession{at, string(value)}
	}
}

// clusterFallsBack reports whether another cluster may have answered.
func (d *day) clusterFallsBack(r *dayRequest) bool {
	c := d.snap.Clusters[r.route.res.Action.Clusters[0].Name]
	return c == nil || c.Fallback != nil
}

// describe lists what a cluster was since then.
func (d *day) describe(name string, then time.Duration) string {
	var b strings.Builder
	for _, p := range d.since(name, then) {
		fmt.Fprintf(&b, "\nfrom %v: ", p.at)
		if p.cluster == nil {
			b.WriteString("removed")
			continue
		}
		fmt.Fprintf(&b, "policy %s, panic below %v (given %v), subsets %+v", p.cluster.LB.Policy, p.cluster.LB.PanicThreshold, p.cluster.LB.HasPanic, p.cluster.LB.Subsets)
		for _, l := range p.assignment.Localities {
			for _, e := range l.Endpoints {
				fmt.Fprintf(&b, "\n  %s %s, priority %d, %v", e.Address.Host, e.Metadata[resource.LBNamespace][subsetKey], l.Priority, e.Health)
			}
		}
	}
	return b.String()
}
