// SPDX-License-Identifier: Apache-2.0

package sniff

// Bounds of a ClientHello.
const (
	// MaxHello is the longest one that is read, in bytes of the message; longer
	// ones are Broken.
	MaxHello = 16 << 10
	// maxRecords is how many records it may be cut over: each look walks them.
	maxRecords = 64
	// MaxPeek is how many bytes any question of this package may need.
	MaxPeek = MaxHello + 4 + maxRecords*recordHeader

	recordHeader = 5
	maxRecord    = 16 << 10
	maxName      = 255
)

// Hello reads a ClientHello (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2). The zero value is
// ready; a Hello may be used for one connection after the other.
type Hello struct {
	// Max is how long a ClientHello may be, in bytes of the message; 0 is MaxHello,
	// which it cannot exceed.
	Max int

	joined []byte
	large  bool
	name   []byte // server_name
	alpn   []byte // ProtocolNameList without its length, checked
}

// ServerName is the name that the client asks for, as it was sent; nil without one.
// Valid until the next Read, as long as its input.
func (h *Hello) ServerName() []byte { return h.name }

// TooLarge reports whether what was Broken was so by its length alone.
func (h *Hello) TooLarge() bool { return h.large }

func (h *Hello) tooLarge(n int) bool {
	most := MaxHello
	if h.Max > 0 {
		most = min(h.Max, MaxHello)
	}
	h.large = n > most
	return h.large
}

// Protocols is the ALPN list as it was sent, for NextProtocol; empty without one.
// Valid as long as ServerName.
func (h *Hello) Protocols() []byte { return h.alpn }

// NextProtocol takes the first protocol off a list that is not empty.
func NextProtocol(list []byte) (proto, rest []byte) {
	n := 1 + int(list[0])
	return list[1:n], list[n:]
}

// Read asks whether in begins with a ClientHello, and reads it if so.
func (h *Hello) Read(in []byte) Verdict {
	h.name, h.alpn, h.large = nil, nil, false
	msg, v := h.message(in)
	if v != Yes {
		return v
	}
	if !h.hello(msg) {
		h.name, h.alpn = nil, nil
		return Broken
	}
	return Yes
}

// head checks the bytes that tell TLS from all else: the record's type and major
// version, the message's type.
func head(in []byte) Verdict {
	for i, b := range in[:min(len(in), 6)] {
		switch i {
		case 0:
			if b != 22 { // handshake
				return No
			}
		case 1:
			if b != 3 {
				return No
			}
		case 2:
			if b > 4 {
				return No
			}
		case 5:
			if b != 1 { // client_hello
				return No
			}
		}
	}
	if len(in) < 6 {
		return More
	}
	return Yes
}

// message returns the body of the handshake message, joined where it was cut.
func (h *Hello) message(in []byte) ([]byte, Verdict) {
	if v := head(in); v != Yes {
		return nil, v
	}
	if n := recordLen(in); n >= 4 && len(in) >= recordHeader+4 { // nearly always in one record
		body := messageLen(in[recordHeader:])
		switch {
		case h.tooLarge(body) || n > maxRecord:
			return nil, Broken
		case n >= 4+body && len(in) < recordHeader+4+body:
			return nil, More
		case n >= 4+body:
			return in[recordHeader+4:][:body], Yes
		}
	}
	return h.join(in)
}

func recordLen(in []byte) int  { return int(in[3])<<8 | int(in[4]) }
func messageLen(in []byte) int { return int(in[1])<<16 | int(in[2])<<8 | int(in[3]) }

// join gathers a message from its records.
func (h *Hello) join(in []byte) ([]byte, Verdict) {
	h.joined = h.joined[:0]
	for records := 0; ; records++ {
		if len(h.joined) >= 4 {
			switch n := messageLen(h.joined); {
			case h.tooLarge(n):
				return nil, Broken
			case len(h.joined) >= 4+n:
				return h.joined[4:][:n], Yes
			}
		}
		if records == maxRecords {
			return nil, Broken
		}
		// A header is judged byte by byte, so that the answer comes as early however
		// the input is cut.
		for i, b := range in[:min(len(in), 3)] {
			if i == 0 && b != 22 || i == 1 && b != 3 || i == 2 && b > 4 {
				return nil, Broken
			}
		}
		if len(in) < recordHeader {
			return nil, More
		}
		n := recordLen(in)
		if n == 0 || n > maxRecord {
			return nil, Broken
		}
		in = in[recordHeader:]
		got := min(n, len(in))
		h.joined = append(h.joined, in[:min(got, MaxHello+4-len(h.joined))]...)
		if got < n {
			if len(h.joined) < 4 || len(h.joined) < 4+messageLen(h.joined) && !h.tooLarge(messageLen(h.joined)) {
				return nil, More
			}
		}
		in = in[got:]
	}
}

// cursor reads what TLS encodes with lengths; ok turns false for good at the
// first read that goes beyond the end.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || n > len(c.b) {
		c.ok = false
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) number(bytes int) (n int) {
	for _, b := range c.take(bytes) {
		n = n<<8 | int(b)
	}
	return n
}

// vector takes a vector whose length is in so many bytes.
func (c *cursor) vector(bytes int) []byte { return c.take(c.number(bytes)) }

// hello reads the body of a ClientHello and reports whether it is whole.
func (h *Hello) hello(msg []byte) bool {
	c := cursor{msg, true}
	if c.number(2)>>8 != 3 {
		return false
	}
	c.take(32) // random
	session, suites, compressions := c.vector(1), c.vector(2), c.vector(1)
	if !c.ok || len(session) > 32 || len(suites) < 2 || len(suites)%2 != 0 || len(compressions) < 1 {
		return false
	}
	if len(c.b) == 0 {
		return true // TLS 1.2 may do without extensions
	}
	extensions := cursor{c.vector(2), c.ok}
	if !c.ok || len(c.b) != 0 {
		return false
	}
	var named, listed bool
	for len(extensions.b) > 0 {
		kind, data := extensions.number(2), extensions.vector(2)
		if !extensions.ok {
			return false
		}
		switch kind {
		case 0:
			if named || !h.serverName(data) {
				return false
			}
			named = true
		case 16:
			if listed || !h.protocols(data) {
				return false
			}
			listed = true
		}
	}
	return true
}

// serverName reads server_name (RFC 6066 §3): one host name, without NUL.
func (h *Hello) serverName(data []byte) bool {
	c := cursor{data, true}
	list := cursor{c.vector(2), c.ok}
	if !c.ok || len(c.b) != 0 {
		return false
	}
	kind, name := list.number(1), list.vector(2)
	if !list.ok || len(list.b) != 0 || kind != 0 || len(name) == 0 || len(name) > maxName {
		return false
	}
	for _, b := range name {
		if b <= ' ' || b == 0x7f {
			return false
		}
	}
	h.name = name
	return true
}

// protocols reads application_layer_protocol_negotiation (RFC 7301 §3.1).
func (h *Hello) protocols(data []byte) bool {
	c := cursor{data, true}
	list := cursor{c.vector(2), c.ok}
	if !c.ok || len(c.b) != 0 || len(list.b) == 0 {
		return false
	}
	h.alpn = list.b
	for len(list.b) > 0 {
		if len(list.vector(1)) == 0 || !list.ok {
			return false
		}
	}
	return true
}
