// SPDX-License-Identifier: Apache-2.0

package statefulsession

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func rawKey(b byte) []byte { return bytes.Repeat([]byte{b}, keyBytes) }

// withSecret is a filter whose keys are a secret, and what the secret is given by.
func withSecret(t *testing.T) (f *session, give func(key ...byte)) {
	t.Helper()
	spec := Spec()
	c, err := parse(sealedBy(t, `{"cookie": {"name": "sid"}, "keySecret": {"name": "keys", "initialFetchTimeout": "3s"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if name, wait := c.(filter.NeedsSecret).NeededSecret(); name != "keys" || wait != 3*time.Second {
		t.Fatalf("needs %q, and waits for %v", name, wait)
	}
	f = spec.New(c, filter.Worker{Name: "session"}).(*session)
	f.wall = func() int64 { return now * 1e9 }
	return f, func(key ...byte) {
		var all []byte
		for _, b := range key {
			all = append(all, rawKey(b)...)
		}
		spec.Secrets(map[string]*resource.Secret{"keys": {Name: "keys", Generic: all}, "cert": {Certificate: &resource.TLSCertificate{}}})
	}
}

func TestKeysOfASecretRollOver(t *testing.T) {
	f, give := withSecret(t)
	if got := told(f, here, "set-cookie"); got != "" {
		t.Fatalf("without keys a client is told %s", got)
	}
	at := func(cookie string) string {
		x := asked("/", cookie)
		if f.OnRequest(x); !x.Override.Address.IsValid() {
			return ""
		}
		return x.Override.Address.String()
	}
	give(1)
	first := cookieOf(told(f, here, "set-cookie"))
	for _, step := range []struct {
		name    string
		keys    []byte
		want    string
		renewed bool
	}{
		{"the first key", []byte{1}, here.String(), false},
		{"the second is announced", []byte{1, 2}, here.String(), false},
		{"the second encrypts", []byte{2, 1}, here.String(), true},
		{"the third is announced", []byte{2, 3}, "", true},
		{"none", nil, "", false},
	} {
		give(step.keys...)
		if got := at(first); got != step.want {
			t.Errorf("%s: the session leads to %q, want %q", step.name, got, step.want)
		}
		if got := told(f, here, "set-cookie", first) != ""; got != step.renewed {
			t.Errorf("%s: it is told again: %v, want %v", step.name, got, step.renewed)
		}
	}
	spec := Spec() // of another chain of filters
	spec.Secrets(map[string]*resource.Secret{"keys": {Generic: []byte("short")}})
	if got := told(f, here, "set-cookie"); got != "" {
		t.Errorf("after that a client is told %s", got)
	}
}

func TestBadNamesOfSecretsAreRefusedByField(t *testing.T) {
	for json, want := range map[string]string{
		`{"header": "a", "keySecret": {}}`:                                        "value.keySecret: name: is empty",
		`{"header": "a", "keySecret": {"name": "k", "ads": {}}}`:                  "value.keySecret: ads: not supported",
		`{"header": "a", "keySecret": {"name": "k", "initialFetchTimeout": "x"}}`: "value.keySecret: initialFetchTimeout: want a duration",
		`{"header": "a", "keySecret": {"name": "k"}, "keyFiles": ["/x"]}`:         "value: want exactly one of keyFiles and keySecret",
	} {
		if _, err := parse(sealedBy(t, json)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", json, err, want)
		}
	}
}
