// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// scalar reads a scalar of one line.
func (r *plainReader) scalar(key string, flow bool) bool {
	c := r.peek(0)
	switch {
	case c == '"':
		text, ok := r.quoted()
		r.add(textNode, key, text)
		return ok
	case c == '\'':
		text, ok := r.singleQuoted()
		r.add(textNode, key, text)
		return ok
	case isLetter(c), isDigit(c), c == '/', c == '_':
	case (c == '-' || c == '+') && isDigit(r.peek(1)):
	default:
		return false
	}
	start := r.at
	for r.at < len(r.s) {
		c := r.s[r.at]
		switch {
		case isLetter(c), isDigit(c):
		case c == ',' && flow:
			return r.plain(key, r.s[start:r.at])
		case c == ':':
			if n := r.peek(1); n == ' ' || n == '\n' || flow && !isLetter(n) && !isDigit(n) && n != '/' {
				return false
			}
		case c == ' ':
			// Inside the text, or its end. A space before a colon the full parser leaves out at
			// times.
			if r.peek(1) == ':' {
				return false
			}
			if n := r.peek(1); n == ' ' || n == '\n' || n == '#' || flow && (n == ',' || n == '}' || n == ']') {
				return r.plain(key, r.s[start:r.at])
			}
		case strings.IndexByte("_-./+=,@%$();~*", c) >= 0:
		default: // among them the end of the line and of a flow collection
			return (c == '\n' || flow && (c == '}' || c == ']')) && r.plain(key, r.s[start:r.at])
		}
		r.at++
	}
	return r.plain(key, r.s[start:r.at])
}

// plain adds a scalar without quotes by its meaning.
func (r *plainReader) plain(key, text string) bool {
	switch text {
	case "null":
		r.add(nullNode, key, "")
		return true
	case "true", "false":
		r.add(boolNode, key, text)
		return true
	case "Null", "NULL", "True", "TRUE", "False", "FALSE":
		return false
	}
	if c := text[0]; isDigit(c) || c == '-' || c == '+' {
		if shortNumber(text) {
			r.add(numberNode, key, text)
			return true
		}
		if strings.HasSuffix(text, ":") || strings.Count(text, ".") < 2 {
			return r.number(key, text)
		}
	}
	r.add(textNode, key, text)
	return true
}

// shortNumber reports whether the text is how a whole number is written anyway.
func shortNumber(text string) bool {
	if len(text) > 18 || text[0] == '0' && len(text) > 1 {
		return false
	}
	for i := 0; i < len(text); i++ {
		if !isDigit(text[i]) {
			return false
		}
	}
	return true
}

// number adds a scalar that may be a number by the full parser's own rule.
func (r *plainReader) number(key, text string) bool {
	n := token.ToNumber(text)
	switch {
	case n == nil:
		r.add(textNode, key, text)
	case n.Type == token.NumberTypeFloat:
		r.add(numberNode, key, strconv.FormatFloat(n.Value.(float64), 'g', -1, 64))
	default:
		r.add(numberNode, key, fmt.Sprint(n.Value))
	}
	return true
}

// quoted reads a text in double quotes with the escapes that are common.
func (r *plainReader) quoted() (string, bool) {
	start, escapes := r.at+1, false
	for i := start; i < len(r.s); i++ {
		switch r.s[i] {
		case '\n':
			return "", false
		case '\\':
			i++
			escapes = true
			if i == len(r.s) || strings.IndexByte(`"\nt`, r.s[i]) < 0 {
				return "", false
			}
		case '"':
			r.at = i + 1
			if escapes {
				return unescape.Replace(r.s[start:i]), true
			}
			return r.s[start:i], true
		}
	}
	return "", false
}

var unescape = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n", `\t`, "\t")

func (r *plainReader) singleQuoted() (string, bool) {
	start := r.at + 1
	for i := start; i < len(r.s); i++ {
		switch {
		case r.s[i] == '\n':
			return "", false
		case r.s[i] != '\'':
		case i+1 < len(r.s) && r.s[i+1] == '\'':
			i++
		default:
			r.at = i + 1
			return strings.ReplaceAll(r.s[start:i], "''", "'"), true
		}
	}
	return "", false
}
