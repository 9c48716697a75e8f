// SPDX-License-Identifier: Apache-2.0

package mtls

import (
	"encoding/asn1"
	"strings"
	"testing"
)

func TestNamesWithOddBytesAreRefused(t *testing.T) {
	for _, tag := range []int{1, 2, 6} {
		for _, name := range []string{"spiffe://mesh.example/a\x00.evil", "a b", "a\tb", "a\x7f", "a\xc3\xa4", "\x00"} {
			der, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(name)}})
			if err != nil {
				t.Fatal(err)
			}
			if err := new(Identity).names(der); err == nil {
				t.Errorf("a name of kind %d with %q was taken", tag, name)
			}
		}
	}
	for _, der := range []string{"", "\x30", "\x30\x03\x82\x05a", "\x31\x03\x82\x01a", "\x30\x03\x82\x01a\x00", "\x30\x03\x02\x01a"} {
		if err := new(Identity).names([]byte(der)); err == nil {
			t.Errorf("%q was taken as a list of names", der)
		}
	}
}

func TestSPIFFEIDsAreParsedExactly(t *testing.T) {
	for id, domain := range map[string]string{
		"spiffe://mesh.example/ns/a/sa/b": "mesh.example", "spiffe://a/b": "a", "spiffe://a_b-1.c/A.b_c-D": "a_b-1.c",
		"spiffe://a": "", "spiffe://a/": "", "spiffe:///b": "", "spiffe://A/b": "", "spiffe://a/b/": "", "spiffe://a//b": "", "spiffe://a/./b": "", "spiffe://a/..": "",
		"spiffe://a:1/b": "", "spiffe://u@a/b": "", "spiffe://a/b?c": "", "spiffe://a/b#c": "", "spiffe://a/%62": "", "Spiffe://a/b": "", "http://a/b": "", "spiffe:a/b": "", "": "",
		"spiffe://*/b": "", "spiffe://a/*": "", "spiffe://" + strings.Repeat("a", 256) + "/b": "", "spiffe://a/" + strings.Repeat("b", 2048): "",
	} {
		got, err := parseSPIFFE(id)
		if got != domain && err == nil || (err == nil) != (domain != "") {
			t.Errorf("%.60q: trust domain %q, %v; want %q", id, got, err, domain)
		}
	}
}
