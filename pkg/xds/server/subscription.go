// SPDX-License-Identifier: Apache-2.0

package server

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// absent is the version under which a client is known to have been told that
// a resource does not exist. No content hash looks like it.
const absent = "absent"

// subscription is one type on one stream, over all its watches. Guarded by
// Server.mu, but for what names points to: that map belongs to the stream's
// goroutine, which changes it only between the cancellation of a watch and the
// next one; attached is false then.
type subscription struct {
	stream  *stream
	typeURL string
	sets    []*resourceSet // in order of precedence; fixed

	// The current watch.
	attached bool // names and wildcard may be read
	open     bool // a response may be sent
	names    map[string]struct{}
	wildcard bool
	sotwReq  *discoveryv3.DiscoveryRequest
	sotwCh   chan<- cachev3.Response
	deltaReq *discoveryv3.DeltaDiscoveryRequest
	deltaCh  chan<- cachev3.DeltaResponse

	// What the client has been sent, and what may differ from it.
	known  map[string]string // name → version of the last one sent
	dirty  map[string]struct{}
	forced map[string]struct{} // to be sent even if unchanged: the client asked again
	full   bool                // everything known or wanted is dirty
	first  bool                // nothing was answered yet: an empty answer is an answer

	unknownSince map[string]time.Time // wanted by name, not there, not told yet
	held         map[string]time.Time // rejected: not sent again before then
	heldAll      time.Time            // state of the world: the response was rejected
	wakeAt       time.Time            // when a timer will look at what is held

	outstanding []*sent // responses neither acknowledged nor refused, oldest first

	// For the status.
	acked      string
	ackedAt    time.Time
	last       *sent
	nack       *Nack
	rejections map[string]Rejection // by resource name
}

// sent is one response. nonce is empty until the stream takes it from the
// channel: a state-of-the-world response may be thrown away before.
type sent struct {
	nonce    string
	version  string
	at       time.Time
	versions map[string]string // what it carries; "" is a removal
	bytes    int
	resp     any // *DiscoveryResponse or *DeltaDiscoveryResponse, to find it by; nil once sent
}

// published says whether every set has been published at least once.
func (u *subscription) published() bool {
	for _, t := range u.sets {
		if !t.published {
			return false
		}
	}
	return true
}

// version is that of all the sets together.
func (u *subscription) version() string {
	var sum uint64
	for _, t := range u.sets {
		sum += t.sum
	}
	return versionOf(sum)
}

// resource is what is published under a name, or nil.
func (u *subscription) resource(name string) *Resource {
	for _, t := range u.sets {
		if r := t.resources[name]; r != nil {
			return r
		}
	}
	return nil
}

// groups names the sets' groups.
func (u *subscription) groups() []string {
	out := make([]string, len(u.sets))
	for i, t := range u.sets {
		out[i] = t.group
	}
	return out
}

// behind says that there may be something to send.
func (u *subscription) behind() bool { return u.first || u.full || len(u.dirty) > 0 }

// mark makes changed names dirty where the subscription may want them, and
// says whether it has any.
func (u *subscription) mark(names []string) bool {
	before := len(u.dirty)
	for _, name := range names {
		if !u.attached || u.wants(name) {
			u.dirty[name] = struct{}{}
		}
	}
	return len(u.dirty) > before
}

// wants must only be called while attached.
func (u *subscription) wants(name string) bool {
	if u.wildcard {
		return true
	}
	_, ok := u.names[name]
	return ok
}

func (u *subscription) wantsByName(name string) bool {
	_, ok := u.names[name]
	return ok
}

// expand turns "everything" into names.
func (u *subscription) expand() {
	if !u.full {
		return
	}
	u.full = false
	for name := range u.names {
		u.dirty[name] = struct{}{}
	}
	for name := range u.known {
		u.dirty[name] = struct{}{}
	}
	if u.wildcard {
		for _, t := range u.sets {
			for name := range t.resources {
				u.dirty[name] = struct{}{}
			}
		}
	}
}

// forget drops a name that the client unsubscribed from.
func (u *subscription) forget(name string) {
	delete(u.known, name)
	delete(u.dirty, name)
	delete(u.forced, name)
	delete(u.unknownSince, name)
	delete(u.rejections, name)
}

func (u *subscription) again(name string) {
	u.dirty[name] = struct{}{}
	u.forced[name] = struct{}{}
}

// detach is what a watch's cancel function does.
func (u *subscription) detach() {
	u.attached, u.open = false, false
	u.sotwCh, u.deltaCh, u.sotwReq, u.deltaReq = nil, nil, nil, nil
}

// acknowledge settles the response with that nonce, and those before it.
func (u *subscription) acknowledge(nonce string, now time.Time) {
	for i, x := range u.outstanding {
		if x.nonce == "" || x.nonce != nonce {
			continue
		}
		u.acked, u.ackedAt, u.nack = x.version, now, nil
		for _, y := range u.outstanding[:i+1] {
			for name := range y.versions {
				delete(u.rejections, name)
				delete(u.held, name)
			}
		}
		u.heldAll = time.Time{}
		u.outstanding = append(u.outstanding[:0], u.outstanding[i+1:]...)
		return
	}
}

// reject records a refusal and answers what was refused; nil if the nonce is
// not that of an outstanding response.
func (u *subscription) reject(nonce, reason string, hold time.Duration, now time.Time) *Nack {
	for i, x := range u.outstanding {
		if x.nonce == "" || x.nonce != nonce {
			continue
		}
		n := &Nack{Type: u.typeURL, Version: x.version, Reason: clip(reason), At: now, Resources: blamed(x.versions, reason)}
		until := x.at.Add(hold)
		stands := len(n.Resources) == 0
		for _, name := range n.Resources {
			if version := x.versions[name]; version == "" || u.known[name] != version {
				continue // a removal; or it is gone, or the client has left it, meanwhile
			}
			r := u.rejections[name]
			u.rejections[name] = Rejection{Version: x.versions[name], Reason: n.Reason, At: now, Count: r.Count + 1}
			u.held[name] = until
			stands = true
		}
		if stands {
			u.nack, u.heldAll = n, until
		}
		u.outstanding = append(u.outstanding[:0], u.outstanding[i+1:]...)
		return n
	}
	return nil
}

// lostUnsent makes dirty again what a response carried that was thrown away
// before it was sent: go-control-plane does so when a request comes in between.
func (u *subscription) lostUnsent() {
	keep := u.outstanding[:0]
	for _, x := range u.outstanding {
		if x.nonce != "" {
			keep = append(keep, x)
			continue
		}
		for name := range x.versions {
			delete(u.known, name)
			u.dirty[name] = struct{}{}
		}
		// Only a whole answer can repeat a removal.
		u.first = u.first || u.last == nil || fullState(u.typeURL)
	}
	u.outstanding = keep
}
