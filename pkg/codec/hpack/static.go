// SPDX-License-Identifier: Apache-2.0

package hpack

import "github.com/outrigger-mesh/outrigger/pkg/codec"

// staticTable is RFC 7541 Appendix A. Index 0 is not used.
var staticTable = [...]struct{ name, value string }{
	{},
	{":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}

// staticCount is the highest index of the static table.
const staticCount = len(staticTable) - 1

// Indices of the static table that encoders name.
const (
	StaticAuthority = 1
	StaticMethod    = 2 // GET, then POST
	StaticPath      = 4 // "/"
	StaticScheme    = 6 // http, then https
	StaticStatus    = 8 // 200, then 204, 206, 304, 400, 404, 500
)

// staticField is an entry in the form that a List holds.
type staticField struct {
	wire  string // name ": " value CRLF
	name  uint32
	value uint32
	id    codec.Name
	flags Flags
}

var staticFields = buildStaticFields()

func buildStaticFields() (t [staticCount + 1]staticField) {
	for i := 1; i <= staticCount; i++ {
		e := staticTable[i]
		f := staticField{wire: e.name + ": " + e.value + "\r\n", name: uint32(len(e.name)), value: uint32(len(e.value))}
		if e.name[0] == ':' {
			f.flags = Pseudo
		} else {
			f.id = codec.LookupString(e.name)
		}
		t[i] = f
	}
	return t
}

// staticSlots finds the first static index of a name: open addressing.
const staticSlotCount = 256

var staticSlots = buildStaticSlots()

func staticHash(name []byte) uint32 {
	n := len(name)
	return uint32(name[0])*31 ^ uint32(name[n/2])*7 ^ uint32(name[n-1])*131 ^ uint32(n)*17
}

func buildStaticSlots() (t [staticSlotCount]uint8) {
	for i := 1; i <= staticCount; i++ {
		if staticTable[i].name == staticTable[i-1].name {
			continue
		}
		at := staticHash([]byte(staticTable[i].name)) % staticSlotCount
		for t[at] != 0 {
			at = (at + 1) % staticSlotCount
		}
		t[at] = uint8(i)
	}
	return t
}

// StaticIndex is the first index of a lower-case name in the static table, 0 if it
// has none.
func StaticIndex(name []byte) int {
	if len(name) == 0 {
		return 0
	}
	for at := staticHash(name) % staticSlotCount; staticSlots[at] != 0; at = (at + 1) % staticSlotCount {
		if i := int(staticSlots[at]); staticTable[i].name == string(name) {
			return i
		}
	}
	return 0
}

// staticMatch is the index among those of the name at first whose value is v, 0
// if there is none.
func staticMatch(first int, v []byte) int {
	name := staticTable[first].name
	for i := first; i <= staticCount && staticTable[i].name == name; i++ {
		if staticTable[i].value == string(v) {
			return i
		}
	}
	return 0
}
