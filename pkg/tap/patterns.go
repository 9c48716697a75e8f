// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// pattern finds secrets by their look. The places that find returns are in order and
// do not overlap.
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
	jwt      = regexp.MustCompile(`eyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]{5,}(?:\.[A-Za-z0-9_\-]*)?(?:\.[A-Za-z0-9_\-]+)*`)
	userInfo = regexp.MustCompile(`:\\?/\\?/([^\s/?#"'<>\\]+)@`)
	// Without its end the key was cut: everything after the beginning goes.
	privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`)
)

// alwaysPatterns are looked for whatever the rule says.
var alwaysPatterns = []pattern{
	{"jwt", expression("eyJ", jwt)},
	{"private-key", expression("PRIVATE KEY", privateKey)},
	{"user-info", findUserInfo},
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

// matchesLineEnd reports whether a line feed may be in what the expression matches.
func matchesLineEnd(expr string) bool {
	re, err := syntax.Parse(expr, syntax.Perl)
	return err != nil || hasLineEnd(re)
}

func hasLineEnd(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpAnyChar:
		return true
	case syntax.OpLiteral:
		return slices.Contains(re.Rune, '\n')
	case syntax.OpCharClass:
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i] <= '\n' && re.Rune[i+1] >= '\n' {
				return true
			}
		}
	}
	return slices.ContainsFunc(re.Sub, hasLineEnd)
}

// extend adds a place that begins at or behind the last one: what overlaps or touches
// becomes one, so that nothing of either is left.
func extend(found [][2]int, from, to int) [][2]int {
	if n := len(found); n > 0 && from <= found[n-1][1] {
		found[n-1][1] = max(found[n-1][1], to)
		return found
	}
	return append(found, [2]int{from, to})
}

// union sorts places and makes one of those that overlap or touch. It writes to found.
func union(found [][2]int) [][2]int {
	slices.SortFunc(found, func(a, b [2]int) int { return a[0] - b[0] })
	out := found[:0]
	for _, f := range found {
		out = extend(out, f[0], f[1])
	}
	return out
}

// replace puts Redacted where the places of a union are. The input is not written to.
func replace(b []byte, found [][2]int) []byte {
	if len(found) == 0 {
		return b
	}
	var out []byte
	at := 0
	for _, f := range found {
		out = append(append(out, b[at:f[0]]...), Redacted...)
		at = f[1]
	}
	return append(out, b[at:]...)
}

// findCards finds payment card numbers: 13 to 19 digits, single spaces or dashes
// between them, a leading digit that cards have, a right check digit (ISO/IEC
// 7812-1). In a longer run of digits every place is tried, also within a number that
// was found: what stands before a number may look like its beginning.
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
		for j := 0; j+13 <= len(digits); j++ {
			if n := cardAt(digits[j:]); n > 0 {
				found = extend(found, at[j], at[j+n-1]+1)
			}
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
// single spaces in them. Every place is tried, also within a number that was found, and
// of several that begin at one place the longest is taken: text before and behind a
// number looks like a part of it.
func findIBANs(b []byte) (found [][2]int) {
	for i := 0; i+15 <= len(b); i++ {
		if n := ibanAt(b[i:]); n > 0 {
			found = extend(found, i, i+n)
		}
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

// findUserInfo finds who and with what password a URL asks (RFC 3986 §3.2.1), also where
// a text of JSON escapes its slashes.
func findUserInfo(b []byte) (found [][2]int) {
	if bytes.IndexByte(b, '@') < 0 {
		return nil
	}
	for _, m := range userInfo.FindAllSubmatchIndex(b, -1) {
		found = append(found, [2]int{m[2], m[3]})
	}
	return found
}

// cutUserInfo is where a URL's authority begins that the end of the text has cut, as it
// may be before its "@"; len(b) if there is none.
func cutUserInfo(b []byte) int {
	at := bytes.LastIndexByte(b, '/') + 1
	if !bytes.HasSuffix(b[:at], []byte("://")) && !bytes.HasSuffix(b[:at], []byte(`:\/\/`)) || bytes.ContainsAny(b[at:], " \t\r\n?#\"'<>") {
		return len(b)
	}
	return at
}

func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
