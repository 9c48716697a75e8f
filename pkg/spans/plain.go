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
	in []byte // what is left to read

	traceID, id, parentID, kind, name []byte // nil: not there
	timestamp, duration               plainNumber
	local, remote                     plainEndpoint
	tags                              [plainTags]struct{ key, value []byte }
	tagCount                          int
	tagged                            once
	debug, shared                     plainTruth
}

type plainEndpoint struct {
	once
	service    []byte
	ipv4, ipv6 netip.Addr // not valid: not there
	port       plainNumber
}

type plainNumber struct {
	once
	value int64
}

type plainTruth struct {
	once
	value bool
}

// once says whether a field was there.
type once bool

// first notes that it is, and says whether it was not before.
func (o *once) first() bool {
	was := *o
	*o = true
	return !bool(was)
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

// text reads a string; it is not nil.
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

// value reads a string that was not there before.
func (p *plainSpan) value(to *[]byte) bool {
	t, ok := p.text()
	if !ok || *to != nil {
		return false
	}
	*to = t
	return true
}

// number reads a whole number from 0 to 10^18-1 that was not there before.
func (p *plainSpan) number(to *plainNumber) bool {
	n, i := int64(0), 0
	for i < len(p.in) && p.in[i] >= '0' && p.in[i] <= '9' {
		n = 10*n + int64(p.in[i]-'0')
		if i++; i > 18 {
			return false
		}
	}
	if i == 0 || i > 1 && p.in[0] == '0' {
		return false
	}
	p.in, to.value = p.in[i:], n
	return to.first()
}

// truth reads true or false that was not there before.
func (p *plainSpan) truth(to *plainTruth) bool {
	for _, w := range [...]string{"true", "false"} {
		if len(p.in) >= len(w) && string(p.in[:len(w)]) == w {
			p.in, to.value = p.in[len(w):], w == "true"
			return to.first()
		}
	}
	return false
}

func (p *plainSpan) field(name []byte) bool {
	switch string(name) {
	case "traceId":
		return p.value(&p.traceID)
	case "id":
		return p.value(&p.id)
	case "parentId":
		return p.value(&p.parentID)
	case "kind":
		return p.value(&p.kind)
	case "name":
		return p.value(&p.name)
	case "timestamp":
		return p.number(&p.timestamp)
	case "duration":
		return p.number(&p.duration)
	case "localEndpoint":
		return p.endpoint(&p.local)
	case "remoteEndpoint":
		return p.endpoint(&p.remote)
	case "tags":
		return p.tagged.first() && p.object(p.tag)
	case "debug":
		return p.truth(&p.debug)
	case "shared":
		return p.truth(&p.shared)
	}
	return false
}

// endpoint reads one that was not there before.
func (p *plainSpan) endpoint(e *plainEndpoint) bool {
	return e.first() && p.object(func(name []byte) bool {
		switch string(name) {
		case "serviceName":
			return p.value(&e.service)
		case "ipv4":
			t, ok := p.text()
			return ok && put(&e.ipv4, ipv4(t))
		case "ipv6":
			t, ok := p.text()
			return ok && put(&e.ipv6, ipv6(t))
		case "port":
			return p.number(&e.port) && e.port.value <= 65535
		}
		return false
	})
}

// put sets an address that was not there before.
func put(to *netip.Addr, a netip.Addr) bool {
	first := !to.IsValid()
	*to = a
	return first && a.IsValid()
}

// ipv6 is the address of eight groups, or none.
func ipv6(t []byte) netip.Addr {
	a, err := netip.ParseAddr(string(t))
	if err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
		return netip.Addr{}
	}
	return a
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
		Timestamp: p.timestamp.value, Duration: p.duration.value, Debug: p.debug.value, Shared: p.shared.value,
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
	return Endpoint{ServiceName: t.lower(e.service), IPv4: e.ipv4, IPv6: e.ipv6, Port: uint16(e.port.value)}
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
