// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// decodePlain reads a span that is written as plainly as sidecars write theirs: without
// white space, escapes, letters beyond ASCII, annotations, and fields that are unknown,
// absent by null or there twice, in a tenth of the general decoder's time. Of everything
// else, and of everything wrong, it says false: the general decoder knows what to do.
func decodePlain(data []byte) (*Span, bool) {
	var p plainSpan
	if !p.read(data) {
		return nil, false
	}
	return p.span()
}

// plainTags is how many tags a plain span may have; sidecars write up to 18 of their own.
const plainTags = 32

// plainSpan is a span whose texts still lie in the encoding.
type plainSpan struct {
	in   []byte // what is left to read
	seen uint32 // the fields that were there

	traceID, id, parentID, kind, name []byte
	timestamp, duration               int64
	local, remote                     plainEndpoint
	tags                              [plainTags]struct{ key, value []byte }
	tagCount                          int
	debug, shared                     bool
}

type plainEndpoint struct {
	service    []byte
	ipv4, ipv6 netip.Addr
	port       int64
}

func (p *plainSpan) read(data []byte) bool {
	p.in = data
	return p.object(p.field) && len(p.in) == 0
}

// object reads fields in braces with the function.
func (p *plainSpan) object(field func(name []byte) bool) bool {
	if !p.skip('{') {
		return false
	}
	if p.skip('}') {
		return true
	}
	for {
		name, ok := p.text()
		if !ok || !p.skip(':') || !field(name) {
			return false
		}
		if p.skip('}') {
			return true
		}
		if !p.skip(',') {
			return false
		}
	}
}

func (p *plainSpan) skip(c byte) bool {
	if len(p.in) == 0 || p.in[0] != c {
		return false
	}
	p.in = p.in[1:]
	return true
}

// text reads a string.
func (p *plainSpan) text() ([]byte, bool) {
	if !p.skip('"') {
		return nil, false
	}
	for i, c := range p.in {
		switch {
		case c == '"':
			t := p.in[:i]
			p.in = p.in[i+1:]
			return t, true
		case c < ' ' || c > '~' || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

// number reads a whole number from 0 to 10^18-1.
func (p *plainSpan) number() (n int64, ok bool) {
	i := 0
	for i < len(p.in) && p.in[i] >= '0' && p.in[i] <= '9' {
		n = 10*n + int64(p.in[i]-'0')
		if i++; i > 18 {
			return 0, false
		}
	}
	if i == 0 || i > 1 && p.in[0] == '0' {
		return 0, false
	}
	p.in = p.in[i:]
	return n, true
}

func (p *plainSpan) truth() (v, ok bool) {
	for _, w := range [...]string{"true", "false"} {
		if len(p.in) >= len(w) && string(p.in[:len(w)]) == w {
			p.in = p.in[len(w):]
			return w == "true", true
		}
	}
	return false, false
}

// once notes that a field was there.
func (p *plainSpan) once(bit int) bool {
	before := p.seen
	p.seen |= 1 << bit
	return p.seen != before
}

func (p *plainSpan) field(name []byte) (ok bool) {
	switch string(name) {
	case "traceId":
		p.traceID, ok = p.text()
		return ok && p.once(0)
	case "id":
		p.id, ok = p.text()
		return ok && p.once(1)
	case "parentId":
		p.parentID, ok = p.text()
		return ok && p.once(2)
	case "kind":
		p.kind, ok = p.text()
		return ok && p.once(3)
	case "name":
		p.name, ok = p.text()
		return ok && p.once(4)
	case "timestamp":
		p.timestamp, ok = p.number()
		return ok && p.once(5)
	case "duration":
		p.duration, ok = p.number()
		return ok && p.once(6)
	case "localEndpoint":
		return p.once(7) && p.endpoint(&p.local, 16)
	case "remoteEndpoint":
		return p.once(8) && p.endpoint(&p.remote, 20)
	case "tags":
		return p.once(9) && p.object(p.tag)
	case "debug":
		p.debug, ok = p.truth()
		return ok && p.once(10)
	case "shared":
		p.shared, ok = p.truth()
		return ok && p.once(11)
	}
	return false
}

// endpoint reads one whose fields are noted from the bit on.
func (p *plainSpan) endpoint(e *plainEndpoint, bit int) bool {
	return p.object(func(name []byte) (ok bool) {
		switch string(name) {
		case "serviceName":
			e.service, ok = p.text()
			return ok && p.once(bit)
		case "ipv4":
			t, ok := p.text()
			e.ipv4 = ipv4(t)
			return ok && e.ipv4.IsValid() && p.once(bit+1)
		case "ipv6":
			t, ok := p.text()
			if !ok {
				return false
			}
			a, err := netip.ParseAddr(string(t))
			e.ipv6 = a
			return err == nil && a.Is6() && !a.Is4In6() && a.Zone() == "" && p.once(bit+2)
		case "port":
			e.port, ok = p.number()
			return ok && e.port <= 65535 && p.once(bit+3)
		}
		return false
	})
}

// ipv4 is the address of four numbers, or none.
func ipv4(t []byte) netip.Addr {
	var a [4]byte
	at, n, digits := 0, 0, 0
	for _, c := range t {
		switch {
		case c == '.' && digits > 0 && at < 3:
			a[at] = byte(n)
			at, n, digits = at+1, 0, 0
		case c < '0' || c > '9' || digits > 0 && n == 0: // a zero leads
			return netip.Addr{}
		default:
			if n, digits = 10*n+int(c-'0'), digits+1; n > 255 {
				return netip.Addr{}
			}
		}
	}
	if at != 3 || digits == 0 {
		return netip.Addr{}
	}
	a[at] = byte(n)
	return netip.AddrFrom4(a)
}

func (p *plainSpan) tag(key []byte) bool {
	value, ok := p.text()
	if !ok || p.tagCount == plainTags {
		return false
	}
	p.tags[p.tagCount].key, p.tags[p.tagCount].value = key, value
	p.tagCount++
	return true
}

// span is what was read, with all its texts in one piece of memory.
func (p *plainSpan) span() (*Span, bool) {
	kind, ok := kindOf(p.kind)
	if !ok || len(p.traceID) != 16 && len(p.traceID) != 32 || !digits(p.traceID) ||
		len(p.id) != 16 || !digits(p.id) || len(p.parentID) != 0 && (len(p.parentID) != 16 || !digits(p.parentID)) {
		return nil, false
	}
	tags := p.tags[:p.tagCount]
	size := len(p.traceID) + len(p.id) + len(p.parentID) + len(p.name) + len(p.local.service) + len(p.remote.service)
	for _, t := range tags {
		size += len(t.key) + len(t.value)
	}
	texts := texts{}
	texts.Grow(size)
	s := &Span{
		TraceID: texts.add(p.traceID), ID: texts.add(p.id), Kind: kind, Name: texts.lower(p.name),
		Timestamp: p.timestamp, Duration: p.duration, Debug: p.debug, Shared: p.shared,
		Local: p.local.endpoint(&texts), Remote: p.remote.endpoint(&texts),
	}
	if string(p.parentID) != s.ID {
		s.ParentID = texts.add(p.parentID)
	}
	if len(tags) > 0 {
		s.Tags = make([]Tag, len(tags))
	}
	for i, t := range tags {
		s.Tags[i] = Tag{texts.key(t.key), texts.add(t.value)}
	}
	slices.SortFunc(s.Tags, func(a, b Tag) int { return cmp.Compare(a.Key, b.Key) })
	for i := 1; i < len(s.Tags); i++ {
		if s.Tags[i].Key == s.Tags[i-1].Key {
			return nil, false
		}
	}
	return s, true
}

func (e *plainEndpoint) endpoint(t *texts) Endpoint {
	return Endpoint{ServiceName: t.lower(e.service), IPv4: e.ipv4, IPv6: e.ipv6, Port: uint16(e.port)}
}

func kindOf(b []byte) (Kind, bool) {
	for _, k := range [...]Kind{"", Client, Server, Producer, Consumer} {
		if string(b) == string(k) {
			return k, true
		}
	}
	return "", false
}

// digits reports whether an identifier is lower-case hexadecimal and not zero.
func digits(id []byte) bool {
	zero := true
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
		zero = zero && c == '0'
	}
	return !zero
}

// texts takes the texts of a span into one allocation, that Grow has made.
type texts struct{ strings.Builder }

func (t *texts) add(b []byte) string {
	at := t.Len()
	t.Write(b)
	return t.String()[at:]
}

func (t *texts) lower(b []byte) string {
	at := t.Len()
	for _, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		t.WriteByte(c)
	}
	return t.String()[at:]
}

// key is add for the key of a tag; those that every span has are not copied.
func (t *texts) key(b []byte) string {
	for _, k := range [...]string{
		"component", "node_id", "guid:x-request-id", "http.method", "http.url", "http.protocol", "user_agent",
		"peer.address", "request_size", "response_size", "http.status_code", "response_flags", "upstream_cluster",
		"upstream_address", "retry.count", "error",
	} {
		if string(b) == k {
			return k
		}
	}
	return t.add(b)
}
