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
// number as a whole.
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
	for i := 0; i < len(b); i++ {
		for end := min(len(b), i+70); end > i; end-- {
			if valid(string(b[i:end])) {
				found = append(found, [2]int{i, end})
				i = end - 1
				break
			}
		}
	}
	return found
}

func TestAccountNumbersAreThoseOfTheStandard(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	pieces := []string{aIBAN, strings.ReplaceAll(aIBAN, " ", ""), "GB29 NWBK 6016 1331 9268 19", "AB12", "NO9386011117947", " ", "  ", "x", "A", "7", "DE", "89"}
	some := 0
	for range 3000 {
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
