// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// pattern finds secrets by their look. Find appends the places, in order and
// without overlap.
type pattern struct {
	name string
	find func(b []byte) [][2]int
}

// detectors are the patterns that have a name.
var detectors = []pattern{
	{"payment-card", findCards},
	{"iban", findIBANs},
	{"email", expression("@", regexp.MustCompile(`[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63})+`))},
	{"jwt", expression("eyJ", jwt)},
	{"private-key", expression("PRIVATE KEY", privateKey)},
}

var (
	jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]{5,}(?:\.[A-Za-z0-9_\-]*)?`)
	// Without its end the key was cut: everything after the beginning goes.
	privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`)
)

// alwaysPatterns are looked for whatever the rule says.
var alwaysPatterns = []pattern{
	{"jwt", expression("eyJ", jwt)},
	{"private-key", expression("PRIVATE KEY", privateKey)},
}

const maxExpression = 1024 // bytes of a rule's own expression

func parsePattern(s string) (pattern, error) {
	if expr, ok := strings.CutPrefix(s, "regex:"); ok {
		if len(expr) > maxExpression {
			return pattern{}, fmt.Errorf("the expression is longer than %d bytes", maxExpression)
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return pattern{}, err
		}
		if re.MatchString("") {
			return pattern{}, fmt.Errorf("%q matches the empty text", expr)
		}
		return pattern{s, expression("", re)}, nil
	}
	var names []string
	for _, p := range detectors {
		if p.name == s {
			return p, nil
		}
		names = append(names, p.name)
	}
	slices.Sort(names)
	return pattern{}, fmt.Errorf("unknown pattern %q (known: %s, regex:EXPRESSION)", s, strings.Join(names, ", "))
}

// expression finds by a regular expression; hint is text without which it cannot
// match, so that most values cost one search.
func expression(hint string, re *regexp.Regexp) func([]byte) [][2]int {
	return func(b []byte) (found [][2]int) {
		if hint != "" && !bytes.Contains(b, []byte(hint)) {
			return nil
		}
		for _, m := range re.FindAllIndex(b, -1) {
			if m[1] > m[0] {
				found = append(found, [2]int{m[0], m[1]})
			}
		}
		return found
	}
}

// redact replaces what the pattern finds. The input is not written to.
func (p *pattern) redact(b []byte) (out []byte, n uint32) {
	found := p.find(b)
	if len(found) == 0 {
		return b, 0
	}
	at := 0
	for _, f := range found {
		out = append(append(out, b[at:f[0]]...), Redacted...)
		at = f[1]
	}
	return append(out, b[at:]...), uint32(len(found))
}

// findCards finds payment card numbers: 13 to 19 digits, single spaces or dashes
// between them, a leading digit that cards have, a right check digit (ISO/IEC
// 7812-1). In a longer run of digits every place is tried: better a number too
// many than one too few.
func findCards(b []byte) (found [][2]int) {
	var digits []byte
	var at []int
	for i := 0; i < len(b); {
		if b[i] < '0' || b[i] > '9' {
			i++
			continue
		}
		digits, at = digits[:0], at[:0]
		for i < len(b) {
			if c := b[i]; c >= '0' && c <= '9' {
				digits, at = append(digits, c-'0'), append(at, i)
			} else if (c != ' ' && c != '-') || i+1 >= len(b) || b[i+1] < '0' || b[i+1] > '9' {
				break
			}
			i++
		}
		for j := 0; j+13 <= len(digits); {
			n := cardAt(digits[j:])
			if n == 0 {
				j++
				continue
			}
			found = append(found, [2]int{at[j], at[j+n-1] + 1})
			j += n
		}
	}
	return found
}

// cardAt is the length of the longest card number at the front, 0 if none.
func cardAt(d []byte) int {
	if d[0] < 2 || d[0] > 6 {
		return 0
	}
	for n := min(19, len(d)); n >= 13; n-- {
		if luhn(d[:n]) {
			return n
		}
	}
	return 0
}

func luhn(d []byte) bool {
	sum := 0
	for i := range d {
		v := int(d[len(d)-1-i])
		if i%2 == 1 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

// findIBANs finds account numbers with a right checksum (ISO 13616), with or without
// single spaces in them. Of several that begin at one place it takes the longest: text
// behind a number looks like a part of it.
func findIBANs(b []byte) (found [][2]int) {
	for i := 0; i+15 <= len(b); {
		n := ibanAt(b[i:])
		if n == 0 {
			i++
			continue
		}
		found = append(found, [2]int{i, i + n})
		i += n
	}
	return found
}

// ibanAt is the length of the longest account number at the front, 0 if none. The
// remainder of each length follows from that of the one before: the first four
// characters count as the last.
func ibanAt(b []byte) (longest int) {
	if !isUpper(b[0]) || !isUpper(b[1]) || !isDigit(b[2]) || !isDigit(b[3]) {
		return 0
	}
	rest := 0
	for i, n := 4, 5; i < len(b) && n <= 34; i, n = i+1, n+1 {
		if b[i] == ' ' {
			if i++; i == len(b) {
				break
			}
		}
		if !isUpper(b[i]) && !isDigit(b[i]) {
			break
		}
		rest = ibanStep(rest, b[i])
		if n >= 15 && ibanStep(ibanStep(ibanStep(ibanStep(rest, b[0]), b[1]), b[2]), b[3]) == 1 {
			longest = i + 1
		}
	}
	return longest
}

// ibanStep is the remainder by 97 with one more character; letters count as 10 to 35.
func ibanStep(rest int, c byte) int {
	if c >= 'A' {
		return (rest*100 + int(c-'A') + 10) % 97
	}
	return (rest*10 + int(c-'0')) % 97
}

func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
