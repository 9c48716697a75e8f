// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/outrigger-mesh/outrigger/pkg/trace"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// computeHash makes the hash key of the route's policies: each that yields a
// value rotates the key by one and adds its hash (Envoy's rule, so that a mixed
// fleet agrees); a terminal one that yields a value ends the list.
func (x *exchange) computeHash() {
	for i := range x.route.action.hash {
		p := &x.route.action.hash[i]
		v, ok := x.hashInput(p)
		if !ok {
			continue
		}
		h := xxhash.Sum64(v)
		if x.hasHash {
			x.hash = (x.hash<<1 | x.hash>>63) ^ h
		} else {
			x.hash, x.hasHash = h, true
		}
		if p.Terminal {
			return
		}
	}
}

func (x *exchange) hashInput(p *resource.HashPolicy) ([]byte, bool) {
	switch p.Kind {
	case resource.HashHeader:
		v, ok := requestValue(&x.Request, p.Name, &x.w.joined)
		if ok && p.Rewrite != nil {
			v = p.Rewrite.Regex.ReplaceAll(v, []byte(p.Rewrite.Substitution))
		}
		return v, ok
	case resource.HashCookie:
		if v, ok := x.Request.Header.Cookie(p.Name); ok {
			return v, true
		}
		if !p.HasTTL {
			return nil, false
		}
		return x.makeCookie(p), true
	case resource.HashSourceIP:
		a := x.Record.Remote.Addr()
		if !a.IsValid() {
			return nil, false
		}
		x.w.value = a.Unmap().AppendTo(x.w.value[:0])
		return x.w.value, true
	case resource.HashQuery:
		_, query := splitPath(x.Request.Path())
		return queryValue(query, p.Name)
	}
	return nil, false
}

// makeCookie makes the cookie that keeps a client at its endpoint, and has it set
// with the response.
func (x *exchange) makeCookie(p *resource.HashPolicy) []byte {
	id := trace.AppendRequestID(nil, x.w.random.Uint64(), x.w.random.Uint64())
	c := append(append([]byte(p.Name), '='), '"')
	c = append(append(c, id...), '"')
	if p.TTL > 0 {
		c = append(c, "; Max-Age="...)
		c = strconv.AppendInt(c, int64(p.TTL/time.Second), 10)
	}
	if p.CookiePath != "" {
		c = append(append(c, "; Path="...), p.CookiePath...)
	}
	x.setCookie = append(c, "; HttpOnly"...)
	return id
}

// hashAddr hashes a source address for consistent balancing.
func hashAddr(a netip.Addr) uint64 {
	b := a.As16()
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
