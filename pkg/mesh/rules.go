// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rules are what a field's tag says it accepts. The words are: required,
// min=, max= (numbers), maxlen= (bytes of a string), minitems=, maxitems=,
// enum=a|b (of a string, a number, or each item), mindur=, maxdur=, maxsize=.
type rules struct {
	required           bool
	min, max           uint64
	hasMax             bool
	maxLen             int
	minItems, maxItems int
	enum               []string
	minDur, maxDur     time.Duration
	maxSize            Size
}

func parseRules(f reflect.StructField) rules {
	var r rules
	tag := f.Tag.Get("rule")
	if tag == "" {
		return r
	}
	for word := range strings.SplitSeq(tag, ",") {
		key, value, _ := strings.Cut(word, "=")
		if err := r.set(key, value); err != nil {
			panic("mesh: field " + f.Name + ": rule " + word + ": " + err.Error())
		}
	}
	return r
}

func (r *rules) set(key, value string) (err error) {
	switch key {
	case "required":
		r.required = true
	case "min":
		r.min, err = strconv.ParseUint(value, 10, 64)
	case "max":
		r.hasMax = true
		r.max, err = strconv.ParseUint(value, 10, 64)
	case "maxlen":
		r.maxLen, err = strconv.Atoi(value)
	case "minitems":
		r.minItems, err = strconv.Atoi(value)
	case "maxitems":
		r.maxItems, err = strconv.Atoi(value)
	case "enum":
		r.enum = strings.Split(value, "|")
	case "mindur":
		r.minDur, err = time.ParseDuration(value)
	case "maxdur":
		r.maxDur, err = time.ParseDuration(value)
	case "maxsize":
		err = r.maxSize.UnmarshalText([]byte(value))
	default:
		err = fmt.Errorf("unknown word")
	}
	return err
}

// element is what holds for each item of a list.
func (r rules) element() rules { return rules{enum: r.enum, maxLen: elementMaxLen} }

const elementMaxLen = 4096

func (r rules) checkString(s string) string {
	switch {
	case r.required && s == "":
		return "empty"
	case r.maxLen > 0 && len(s) > r.maxLen:
		return fmt.Sprintf("is %d bytes, the limit is %d", len(s), r.maxLen)
	case len(r.enum) > 0 && !slices.Contains(r.enum, s):
		return fmt.Sprintf("want one of %s, got %q", strings.Join(r.enum, ", "), clip(s))
	}
	return ""
}

func (r rules) checkText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case Duration:
		if d := x.Std(); d < r.minDur || r.maxDur > 0 && d > r.maxDur {
			if r.maxDur == 0 {
				return fmt.Sprintf("want at least %s, got %s", Duration(r.minDur), x)
			}
			return fmt.Sprintf("want %s to %s, got %s", Duration(r.minDur), Duration(r.maxDur), x)
		}
	case Size:
		if r.maxSize > 0 && x > r.maxSize {
			return fmt.Sprintf("want at most %s, got %s", r.maxSize, x)
		}
	}
	return ""
}
