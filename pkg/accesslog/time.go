// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// defaultTimeFormat is ISO 8601 with milliseconds, in UTC.
const defaultTimeFormat = "%Y-%m-%dT%H:%M:%S.%3fZ"

// timeFormat is a compiled strftime format, in UTC. The text of one second is
// kept, as most lines share theirs with the one before.
type timeFormat struct {
	parts []timePart

	second int64 // that cache is of
	cache  []byte
	ends   []int // of each part in cache
	valid  bool
}

// timePart is text of a Go layout or literal, followed by digits of the fraction
// of the second (0: none).
type timePart struct {
	verbs  []timeVerb
	digits int
}

type timeVerb struct {
	literal string
	layout  string // of package time
	epoch   bool
}

// timeVerbs are the conversions of strftime by their letter.
var timeVerbs = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'e': "_2", 'j': "002",
	'I': "03", 'p': "PM", 'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January",
	'Z': "MST", 'z': "-0700", 'T': "15:04:05", 'F': "2006-01-02", 'D': "01/02/06", 'R': "15:04",
}

// compileTime reads a format: strftime's letters, %s (seconds since 1970), %f and
// %1f to %9f (digits of the fraction), %E1S to %E9S (seconds with a fraction).
func compileTime(format string) (*timeFormat, error) {
	t := &timeFormat{}
	var cur timePart
	literal := func(s string) { cur.verbs = append(cur.verbs, timeVerb{literal: s}) }
	fraction := func(n int) {
		cur.digits = n
		t.parts = append(t.parts, cur)
		cur = timePart{}
	}
	for i := 0; i < len(format); i++ {
		if n := strings.IndexByte(format[i:], '%'); n != 0 { // whole, so that no character is cut
			if n < 0 {
				n = len(format) - i
			}
			literal(format[i : i+n])
			i += n - 1
			continue
		}
		rest := format[i+1:]
		switch {
		case len(rest) == 0:
			return nil, fmt.Errorf("time format %q ends in a percent sign", format)
		case rest[0] == 's':
			cur.verbs = append(cur.verbs, timeVerb{epoch: true})
			i++
		case rest[0] == '%':
			literal("%")
			i++
		case rest[0] == 'n' || rest[0] == 't':
			literal(" ") // a line must stay one line
			i++
		case rest[0] == 'f':
			fraction(9)
			i++
		case len(rest) > 1 && rest[0] >= '1' && rest[0] <= '9' && rest[1] == 'f':
			fraction(int(rest[0] - '0'))
			i += 2
		case len(rest) > 2 && rest[0] == 'E' && rest[1] >= '1' && rest[1] <= '9' && rest[2] == 'S':
			cur.verbs = append(cur.verbs, timeVerb{layout: "05"}, timeVerb{literal: "."})
			fraction(int(rest[1] - '0'))
			i += 3
		case timeVerbs[rest[0]] != "":
			cur.verbs = append(cur.verbs, timeVerb{layout: timeVerbs[rest[0]]})
			i++
		default:
			return nil, fmt.Errorf("time format %q: unknown conversion %%%c", format, rest[0])
		}
	}
	if len(cur.verbs) > 0 || len(t.parts) == 0 {
		t.parts = append(t.parts, cur)
	}
	t.ends = make([]int, len(t.parts))
	return t, nil
}

// append appends the time, given in unix nanoseconds. The mode is that of the step
// which the format belongs to, always the same.
func (t *timeFormat) append(dst []byte, m mode, nanos int64) []byte {
	sec, frac := nanos/1e9, nanos%1e9
	if frac < 0 {
		sec, frac = sec-1, frac+1e9
	}
	if sec != t.second || !t.valid {
		t.fill(m, sec)
	}
	from := 0
	for i := range t.parts {
		dst = append(dst, t.cache[from:t.ends[i]]...)
		from = t.ends[i]
		dst = appendFraction(dst, frac, t.parts[i].digits)
	}
	return dst
}

func (t *timeFormat) fill(m mode, sec int64) {
	at := time.Unix(sec, 0).UTC()
	t.cache = t.cache[:0]
	for i := range t.parts {
		for _, v := range t.parts[i].verbs {
			switch {
			case v.epoch:
				t.cache = strconv.AppendInt(t.cache, sec, 10)
			case v.layout != "":
				t.cache = at.AppendFormat(t.cache, v.layout)
			case m == inText:
				t.cache = appendText(t.cache, v.literal)
			default:
				t.cache = appendJSON(t.cache, v.literal)
			}
		}
		t.ends[i] = len(t.cache)
	}
	t.second, t.valid = sec, true
}

// appendFraction appends the first n digits of a fraction of nine.
func appendFraction(dst []byte, nanos int64, n int) []byte {
	if n == 0 {
		return dst
	}
	var d [9]byte
	for i := 8; i >= 0; i-- {
		d[i] = byte('0' + nanos%10)
		nanos /= 10
	}
	return append(dst, d[:n]...)
}
