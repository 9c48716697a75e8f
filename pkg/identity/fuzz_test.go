// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"testing"
	"time"
)

// FuzzCheckRequest: whatever is asked for, no panic, every refusal has a reason, and
// what is accepted gives a certificate for the caller's identity and nothing else.
func FuzzCheckRequest(f *testing.F) {
	id := ServiceID(domain, "orders")
	key := newKey(f)
	for _, named := range []ID{{}, id, ServiceID(domain, "payments")} {
		der, err := NewRequest(key, named)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Add(rsa512)
	m := &memory{}
	a, err := Open(start, nil, m.config(nil))
	if err != nil {
		f.Fatal(err)
	}
	m.Authority = a
	f.Fuzz(func(t *testing.T, der []byte) {
		public, err := CheckRequest(der, id)
		if err != nil {
			if ReasonOf(err) == "" {
				t.Fatalf("a refusal without a reason: %v", err)
			}
			return
		}
		issued, err := m.Issue(start, public, id)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := DecodeCertificates(EncodeCertificates(issued.Chain...))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := VerifyPeer(start, chain, m.Bundle().Pool, domain); err != nil || got != id || len(chain[0].Subject.Names) != 0 {
			t.Fatalf("issued to %v, %v", got, err)
		}
	})
}

// FuzzParseID: what is accepted is written back byte by byte.
func FuzzParseID(f *testing.F) {
	f.Add("spiffe://mesh.example/ns/default/sa/orders")
	f.Add("spiffe://mesh.example/x%2f..")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != s {
			t.Fatalf("%q became %q", s, id)
		}
	})
}

// FuzzCheckToken: nobody makes a token without the key.
func FuzzCheckToken(f *testing.F) {
	m := &memory{}
	a, err := Open(start, nil, m.config(nil))
	if err != nil {
		f.Fatal(err)
	}
	good, _, err := a.NewToken(start, []string{"orders"}, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:len(good)-1])
	f.Add("ort1..")
	f.Add("ort1.e30.")
	f.Fuzz(func(t *testing.T, s string) {
		if claims, err := a.CheckToken(start, s); err == nil && s != good {
			t.Fatalf("%q accepted as %v", s, claims)
		}
	})
}
