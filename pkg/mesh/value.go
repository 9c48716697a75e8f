// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is written as Go writes durations: 250ms, 1.5s, 1h30m.
type Duration time.Duration

// UnmarshalText accepts Go's duration syntax; a bare number has no unit and is refused.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("want a duration with a unit, such as 250ms or 15s, got %q", clip(string(text)))
	}
	if v < 0 {
		return fmt.Errorf("want a duration that is not negative, got %s", clip(string(text)))
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the shortest form that Go reads back (1m0s is written 1m).
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Std is the duration as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String drops the zero units that time.Duration prints: 1h, not 1h0m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Size is a number of bytes, written with a unit: 512B, 64KiB, 1MiB; a bare number counts bytes.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"kB", 1000}, {"KB", 1000}, {"MB", 1000 * 1000}, {"GB", 1000 * 1000 * 1000}, {"B", 1},
}

// UnmarshalText accepts a whole number with a unit of sizeUnits or none.
func (s *Size) UnmarshalText(text []byte) error {
	in := strings.TrimSpace(string(text))
	num, mult := in, int64(1)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(in, u.suffix); ok {
			num, mult = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(num, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/mult {
		return fmt.Errorf("want a size such as 64KiB, got %q", clip(in))
	}
	*s = Size(n * mult)
	return nil
}

// MarshalText writes the largest binary unit that divides the size.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	for i := 2; i >= 0; i-- {
		if u := sizeUnits[i]; s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Bytes is the size as a plain number.
func (s Size) Bytes() int64 { return int64(s) }

// Percent is a share of one hundred, written with the sign: 20%, 0.5%.
type Percent float64

// UnmarshalText accepts 0% to 100%; a bare number could be a fraction and is refused.
func (p *Percent) UnmarshalText(text []byte) error {
	num, ok := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	v, err := strconv.ParseFloat(num, 64)
	if !ok || err != nil || math.IsNaN(v) || v < 0 || v > 100 {
		return fmt.Errorf("want a percentage from 0%% to 100%%, such as 20%%, got %q", clip(string(text)))
	}
	*p = Percent(v)
	return nil
}

// MarshalText writes the number with the percent sign.
func (p Percent) MarshalText() ([]byte, error) {
	return []byte(strconv.FormatFloat(float64(p), 'f', -1, 64) + "%"), nil
}

// StatusMatch is an inclusive range of HTTP status codes, written 5xx, 404, 400-499, >= 400 or < 500.
type StatusMatch struct {
	Min, Max uint32
	text     string
}

// UnmarshalText parses one of the forms above; codes are 100 to 599.
func (m *StatusMatch) UnmarshalText(text []byte) error {
	in := strings.TrimSpace(string(text))
	bad := fmt.Errorf("want a status such as 404, 5xx, 400-499 or '>= 400', got %q", clip(in))
	lo, hi, ok := parseStatusRange(in)
	if !ok || lo > hi || lo < 100 || hi > 599 {
		return bad
	}
	*m = StatusMatch{Min: lo, Max: hi, text: in}
	return nil
}

func parseStatusRange(in string) (lo, hi uint32, ok bool) {
	if len(in) == 3 && strings.HasSuffix(in, "xx") {
		c := uint32(in[0] - '0')
		return c * 100, c*100 + 99, in[0] >= '1' && in[0] <= '5'
	}
	if op, num, found := cutComparison(in); found {
		n, err := strconv.ParseUint(num, 10, 16)
		if err != nil {
			return 0, 0, false
		}
		switch v := uint32(n); op {
		case ">=":
			return v, 599, true
		case ">":
			return v + 1, 599, true
		case "<=":
			return 100, v, true
		case "<":
			return 100, max(v, 1) - 1, true
		default:
			return v, v, true
		}
	}
	from, to, ranged := strings.Cut(in, "-")
	if !ranged {
		to = from
	}
	a, errA := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	b, errB := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	return uint32(a), uint32(b), errA == nil && errB == nil
}

// MarshalText writes what the user wrote.
func (m StatusMatch) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

func (m StatusMatch) String() string {
	switch {
	case m.text != "":
		return m.text
	case m.Min == m.Max:
		return strconv.Itoa(int(m.Min))
	}
	return fmt.Sprintf("%d-%d", m.Min, m.Max)
}

// DurationMatch compares a duration: '> 500ms'. Op is one of >, >=, <, <=, =.
type DurationMatch struct {
	Op    string
	Value time.Duration
}

// UnmarshalText accepts an operator and a duration.
func (m *DurationMatch) UnmarshalText(text []byte) error {
	op, num, ok := cutComparison(strings.TrimSpace(string(text)))
	v, err := time.ParseDuration(num)
	if !ok || err != nil || v < 0 {
		return fmt.Errorf("want a comparison such as '> 500ms', got %q", clip(string(text)))
	}
	*m = DurationMatch{Op: op, Value: v}
	return nil
}

// MarshalText writes the operator, a space and the duration.
func (m DurationMatch) MarshalText() ([]byte, error) {
	return []byte(m.Op + " " + Duration(m.Value).String()), nil
}

func cutComparison(s string) (op, rest string, ok bool) {
	for _, o := range []string{">=", "<=", ">", "<", "="} {
		if r, found := strings.CutPrefix(s, o); found {
			return o, strings.TrimSpace(r), true
		}
	}
	return "", "", false
}

// clip bounds what an error quotes of the input.
func clip(s string) string {
	const limit = 64
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
