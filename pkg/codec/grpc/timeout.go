// SPDX-License-Identifier: Apache-2.0

package grpc

import (
	"strconv"
	"time"
)

// maxTimeoutDigits is how many digits grpc-timeout may have.
const maxTimeoutDigits = 8

// MaxTimeout is the longest time that ParseTimeout answers; what is longer is as
// good as none.
const MaxTimeout = 10 * 365 * 24 * time.Hour

// ParseTimeout reads the field grpc-timeout: at most eight digits and a unit.
func ParseTimeout(v []byte) (time.Duration, bool) {
	n := len(v) - 1
	if n < 1 || n > maxTimeoutDigits {
		return 0, false
	}
	var unit time.Duration
	switch v[n] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	count := time.Duration(0)
	for _, c := range v[:n] {
		if c < '0' || c > '9' {
			return 0, false
		}
		count = count*10 + time.Duration(c-'0')
	}
	if count > MaxTimeout/unit {
		return MaxTimeout, true
	}
	return count * unit, true
}

// AppendTimeout appends the field's value in the finest unit that has room for
// it, never longer than d. What is not positive is the shortest there is.
func AppendTimeout(dst []byte, d time.Duration) []byte {
	const limit = 1e8 // what eight digits cannot say
	d = max(d, 1)
	for _, u := range [...]struct {
		length time.Duration
		letter byte
	}{{1, 'n'}, {time.Microsecond, 'u'}, {time.Millisecond, 'm'}, {time.Second, 'S'}, {time.Minute, 'M'}} {
		if n := d / u.length; n < limit {
			return append(strconv.AppendInt(dst, int64(n), 10), u.letter)
		}
	}
	return append(strconv.AppendInt(dst, int64(min(d/time.Hour, limit-1)), 10), 'H')
}
