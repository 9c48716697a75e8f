// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"regexp"
	"regexp/syntax"
	"strings"
)

// maxRegexBytes bounds a user's regular expression; RE2 keeps matching linear.
const maxRegexBytes = 1024

var (
	labelPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	tokenPattern = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
)

// ValidServiceName says whether a name can be one that clients write as a host:
// DNS labels of lower case, digits and hyphens, up to 253 bytes in all.
func ValidServiceName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > 63 || !labelPattern.MatchString(label) {
			return false
		}
	}
	return true
}

// ownHost says whether a name means the caller's own host, or an address: a
// service that took it would be reached where its clients believe to be talking
// to themselves, and pass by what tells their ports' callers apart by Host.
func ownHost(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return last == "localhost" || strings.Trim(last, "0123456789") == ""
}

func checkServiceName(f *faults, path, name string) {
	if name != "" && !ValidServiceName(name) {
		f.add(path, "want a DNS name of lower-case letters, digits, hyphens and dots, got %q", clip(name))
	}
}

func checkObjectName(f *faults, name string) {
	if name != "" && !ValidServiceName(name) {
		f.add("metadata.name", "want lower-case letters, digits, hyphens and dots, beginning and ending with a letter or digit, got %q", clip(name))
	}
}

// checkHostname accepts a DNS name whose first label may be a wildcard.
func checkHostname(f *faults, path, host string) {
	if !ValidServiceName(strings.TrimPrefix(host, "*.")) {
		f.add(path, "want a host name such as shop.example.com or *.example.com, got %q", clip(host))
	}
}

func checkRegex(f *faults, path, expr string) {
	if len(expr) > maxRegexBytes {
		f.add(path, "regular expression is %d bytes, the limit is %d", len(expr), maxRegexBytes)
		return
	}
	if _, err := regexp.Compile(expr); err != nil {
		reason := err.Error()
		if se, ok := err.(*syntax.Error); ok {
			reason = string(se.Code) + ": `" + clip(se.Expr) + "`"
		}
		f.add(path, "regular expression: %s (RE2 syntax)", reason)
	}
}

func checkHeaderName(f *faults, path, name string) {
	if name != "" && !tokenPattern.MatchString(name) {
		f.add(path, "%q is not a header name", clip(name))
	}
}

func checkHeaderValue(f *faults, path, value string) {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		f.add(path, "value has control characters")
	}
}
