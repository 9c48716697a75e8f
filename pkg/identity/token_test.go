// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"
	"testing"
	"time"
)

func TestABootstrapTokenIsGoodForItsServicesUntilItExpires(t *testing.T) {
	m := newMemory(t, nil)
	token, made, err := m.NewToken(start, []string{"orders", "payments"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	m.reopen(t, start, nil) // the token outlives a restart
	claims, err := m.CheckToken(start.Add(59*time.Minute), token)
	if err != nil {
		t.Fatal(err)
	}
	if claims.ID != made.ID || !claims.Allows("orders") || !claims.Allows("payments") || claims.Allows("order") || claims.Allows("") {
		t.Errorf("got %+v", claims)
	}
	if _, err := m.CheckToken(start.Add(time.Hour), token); err == nil || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "controlplane ca token --service NAME") {
		t.Errorf("got %v, want that it expired and how one is made", err)
	}
	if _, err := newMemory(t, nil).CheckToken(start, token); err == nil {
		t.Error("another mesh accepts it")
	}
	other, _, err := m.NewToken(start, []string{"admin"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	mixed := other[:strings.LastIndexByte(other, '.')] + token[strings.LastIndexByte(token, '.'):]
	for _, bad := range []string{"", "x", token + "x", token[:len(token)-1], mixed, "ort1.", "ort1.x", tokenPrefix + strings.Repeat("x", maxTokenBytes)} {
		if claims, err := m.CheckToken(start, bad); err == nil {
			t.Errorf("%q: accepted as %v", bad, claims)
		} else if len(bad) > 8 && strings.Contains(err.Error(), bad) {
			t.Errorf("the error quotes the token: %v", err)
		}
	}
}

func TestATokenWithoutBoundsIsNotMade(t *testing.T) {
	m := newMemory(t, nil)
	for _, c := range []struct {
		services []string
		life     time.Duration
	}{
		{nil, time.Hour}, {[]string{""}, time.Hour}, {[]string{"a/b"}, time.Hour}, {[]string{"Orders"}, time.Hour},
		{[]string{"orders"}, 0}, {[]string{"orders"}, -time.Hour}, {[]string{"orders"}, MaxTokenLife + 1}, {make([]string, MaxTokenServices+1), time.Hour},
	} {
		if _, _, err := m.NewToken(start, c.services, c.life); err == nil {
			t.Errorf("%v for %v: made", c.services, c.life)
		}
	}
}

func TestAnOutsideAuthoritysFilesAreChecked(t *testing.T) {
	chain, key, root := newGivenPEM(t, start, "one", time.Hour)
	_, otherKey, otherRoot := newGivenPEM(t, start, "two", time.Hour)
	leafKey := newKey(t)
	leafPEM, err := EncodeKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory(t, nil)
	issued, err := m.Issue(start, &leafKey.PublicKey, ServiceID(domain, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name             string
		chain, key, root []byte
		at               time.Duration
		says             string
	}{
		{"nothing", nil, key, root, 0, "certificate: no certificate"},
		{"no key", chain, nil, root, 0, "key: no PEM"},
		{"another's key", chain, otherKey, root, 0, "key: is not the key of its certificate"},
		{"an encrypted key", chain, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"), root, 0, "not encrypted"},
		{"another's root", chain, key, otherRoot, 0, "does not lead to the root"},
		{"two roots", chain, key, append(append([]byte{}, root...), otherRoot...), 0, "root: 2 certificates"},
		{"no root", chain, key, nil, 0, "is not self-signed"},
		{"expired", chain, key, root, 2 * time.Hour, "expired"},
		{"of no authority", EncodeCertificates(issued.Chain...), leafPEM, m.Bundle().PEM(), 0, "not that of an authority"},
		{"a key among certificates", append(append([]byte{}, chain...), key...), key, root, 0, `PEM block "PRIVATE KEY"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ReadIssuer(start.Add(c.at), c.chain, c.key, c.root)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
	if _, err := ReadIssuer(start, append(append([]byte{}, chain...), root...), key, nil); err != nil {
		t.Errorf("the root at the end of the chain: %v", err)
	}
}
