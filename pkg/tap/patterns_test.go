// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"math/big"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// slowIBANs finds account numbers as ISO 13616 says it: every place, every length, the
// number as a whole, and the union of all.
func slowIBANs(b []byte) (found [][2]int) {
	shape := regexp.MustCompile(`^[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}$`)
	valid := func(s string) bool {
		if !shape.MatchString(s) {
			return false
		}
		s = strings.ReplaceAll(s, " ", "")
		var digits strings.Builder
		for _, c := range s[4:] + s[:4] {
			if c >= 'A' {
				digits.WriteString(strconv.Itoa(int(c-'A') + 10))
			} else {
				digits.WriteRune(c)
			}
		}
		n, _ := new(big.Int).SetString(digits.String(), 10)
		return n.Mod(n, big.NewInt(97)).Int64() == 1
	}
	hidden := make([]bool, len(b)+1)
	for i := range b {
		for end := min(len(b), i+70); end > i; end-- {
			if valid(string(b[i:end])) {
				for j := i; j < end; j++ {
					hidden[j] = true
				}
				break
			}
		}
	}
	for i, from := 0, -1; i < len(hidden); i++ {
		switch {
		case hidden[i] && from < 0:
			from = i
		case !hidden[i] && from >= 0:
			found = append(found, [2]int{from, i})
			from = -1
		}
	}
	return found
}

func TestAccountNumbersAreThoseOfTheStandard(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	pieces := []string{aIBAN, strings.ReplaceAll(aIBAN, " ", ""), "GB29 NWBK 6016 1331 9268 19", "AB12", "NO9386011117947", " ", "  ", "x", "A", "7", "DE", "89"}
	some := 0
	for range 1500 {
		var text []byte
		for range 1 + r.IntN(6) {
			text = append(text, pieces[r.IntN(len(pieces))]...)
		}
		got, want := findIBANs(text), slowIBANs(text)
		if !slices.Equal(got, want) {
			t.Fatalf("%q: got %v, want %v", text, got, want)
		}
		some += len(want)
	}
	if some == 0 {
		t.Error("no number was found at all")
	}
}

// Whatever stands before, behind and between them, and whatever the order of the
// detectors, nothing of a number is left.
func TestNumbersAreHiddenAsAWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = '0' + byte(r.IntN(10))
		}
		return string(b)
	}
	card := func() string {
		for {
			n := []byte{'2' + byte(r.IntN(5)), 0}
			n = append(n[:1], digits(15)...)
			values := make([]byte, len(n))
			for i := range n {
				values[i] = n[i] - '0'
			}
			if luhn(values) {
				return spaced(string(n), []string{"", " ", "-"}[r.IntN(3)])
			}
		}
	}
	account := func() string {
		for {
			n := "DE" + digits(20)
			if ibanAt([]byte(n)) == len(n) {
				return spaced(n, []string{"", " "}[r.IntN(2)])
			}
		}
	}
	before := []string{"", "2026-01-05 ", "AB28 ", "ref 17 ", "12345678 ", "4", "DE", "X1-", "2026-01-05T10:00:00Z ", "tel 0049-30-1234567 "}
	orders := [][]string{{"payment-card", "iban", "email"}, {"payment-card", "email", "iban"}, {"iban", "payment-card", "email"},
		{"iban", "email", "payment-card"}, {"email", "payment-card", "iban"}, {"email", "iban", "payment-card"}}
	var all []*Redactor
	for _, o := range orders {
		all = append(all, mustRedactor(t, RedactConfig{Patterns: o}))
	}
	for range 5000 {
		secret := card()
		if r.IntN(2) == 0 {
			secret = account()
		}
		front := before[r.IntN(len(before))]
		if r.IntN(2) == 0 {
			front += digits(1+r.IntN(8)) + " "
		}
		text := front + secret + []string{"", " ok", " 12", "-1"}[r.IntN(4)]
		var first string
		for i, x := range all {
			var n uint32
			got := string(x.text([]byte(text), &n))
			if first == "" {
				first = got
			}
			if got != first || n == 0 {
				t.Fatalf("%q: %q by %v, and %q by %v", text, first, orders[0], got, orders[i])
			}
		}
		from, to := len(front), len(front)+len(secret)
		if !slices.ContainsFunc(union(append(findCards([]byte(text)), findIBANs([]byte(text))...)), func(f [2]int) bool { return f[0] <= from && f[1] >= to }) {
			t.Fatalf("%q: %q is left", text, first)
		}
	}
}

// spaced sets a separator behind every four characters.
func spaced(s, sep string) string {
	var b strings.Builder
	for i := range s {
		if i > 0 && i%4 == 0 {
			b.WriteString(sep)
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func TestNumbersThatOverlap(t *testing.T) {
	for in, want := range map[string]string{
		"2026-01-05 4111 1111 1111 1111 ok":              "[redacted] ok",
		"REF AB28 DE89 3704 0044 0532 0130 00":           "REF [redacted]",
		"DE56 7156 3043 3784 9371 99":                    "[redacted]",
		"a eyJaaaaa.bbbbb." + aJWT + ". b":               "a [redacted]. b",
		"4111111111111111," + aCard + ",ask a@b.example": "[redacted],[redacted],ask [redacted]",
	} {
		for _, patterns := range [][]string{{"payment-card", "iban", "email"}, {"email", "iban", "payment-card"}} {
			var n uint32
			if got := string(mustRedactor(t, RedactConfig{Patterns: patterns}).text([]byte(in), &n)); got != want || int(n) != strings.Count(want, Redacted) {
				t.Errorf("%q by %v: got %q, %d counted, want %q", in, patterns, got, n, want)
			}
		}
	}
}

func BenchmarkDetectors(b *testing.B) {
	for name, piece := range map[string]string{"digits": "4", "digits with dashes": "4-", "codes": "AB12", "codes with spaces": "AB12 ", "accounts": aIBAN + " "} {
		b.Run(name, func(b *testing.B) {
			in := []byte(strings.Repeat(piece, MaxBodyBytes/len(piece)))
			r := mustRedactor(b, RedactConfig{Patterns: []string{"payment-card", "iban", "email"}})
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				var n uint32
				r.text(in, &n)
			}
		})
	}
}
