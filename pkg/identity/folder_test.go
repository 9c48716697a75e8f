// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("IDENTITY_TEST_ROTATE"); dir != "" {
		rotateForEver(Folder(dir))
	}
	os.Exit(m.Run())
}

// rotateForEver rotates as fast as the disk lets it, a day at a time.
func rotateForEver(f Folder) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	saved, err := f.Load()
	fail(err)
	a, err := Open(start, saved, Config{TrustDomain: domain, Save: f.Save})
	fail(err)
	now := start
	for i := 0; ; i++ {
		key, err := NewKey()
		fail(err)
		_, err = a.Issue(now, &key.PublicKey, ServiceID(domain, "orders"))
		fail(err)
		if a.state.root(Announced) == nil {
			fail(a.Rotate(now, 0))
		}
		now = now.Add(24 * time.Hour)
		_, err = a.Step(now)
		fail(err)
		fmt.Println("rotated", i)
	}
}

func TestAnAuthorityThatIsKilledDuringARotationComesBackWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	for round := range 8 {
		c := exec.Command(os.Args[0], "-test.run=^$")
		c.Env = append(os.Environ(), "IDENTITY_TEST_ROTATE="+dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed while it writes, after so many lines: it never pauses.
		buf := make([]byte, 64)
		for range 1 + round {
			if n, err := out.Read(buf); err != nil || bytes.Contains(buf[:n], []byte("error")) {
				t.Fatalf("%s, %v", buf[:n], err)
			}
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // killed
		saved, err := Folder(dir).Load()
		if err != nil || saved == nil {
			t.Fatalf("round %d: %v", round, err)
		}
		m := &memory{saved: saved}
		last := saved.root(Signing).SignsAt
		m.reopen(t, last, nil)
		if _, err := VerifyPeer(last, m.leaf(t, last, "orders"), m.Bundle().Pool, domain); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		// What was written last but not renamed is no harm.
		if err := os.WriteFile(filepath.Join(dir, stateFile+".new"), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
		// The next one starts on the virtual clock's beginning again; its roots are new.
		if err := os.Remove(filepath.Join(dir, stateFile)); err != nil && round%2 == 0 {
			t.Fatal(err)
		}
	}
}

func TestWhatACrashHasLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{stateFile, bundleFile} {
		if err := os.WriteFile(filepath.Join(dir, name+".new"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Folder(dir).Load(); s != nil || err != nil {
		t.Fatalf("%v, %v", s, err)
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("%v are left, %v", left, err)
	}
}

func TestTheFolderIsForItsOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	f := Folder(dir)
	if s, err := f.Load(); s != nil || err != nil {
		t.Fatalf("an empty folder holds %v, %v", s, err)
	}
	if _, err := Open(start, nil, Config{Save: f.Save}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{".": 0o700 | os.ModeDir, stateFile: 0o600, bundleFile: 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, want %v (%v)", name, info.Mode(), want, err)
		}
	}
	path := filepath.Join(dir, stateFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "can be read by others") {
		t.Errorf("got %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)/2], "another version": bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 9`), 1),
		"no root":               []byte(`{"version":1,"trustDomain":"x","tokenKey":"` + base64.StdEncoding.EncodeToString(make([]byte, 32)) + `"}`),
		"keys that are swapped": swapKeys(t, good),
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := f.Load()
		if err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func swapKeys(t *testing.T, data []byte) []byte {
	t.Helper()
	s, err := DecodeState(data)
	if err != nil {
		t.Fatal(err)
	}
	s.Roots[0].Key, s.Intermediate.Key = s.Intermediate.Key, s.Roots[0].Key
	out, err := EncodeState(*s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestNoWayOfPrintingShowsAKey prints everything that holds one in every way.
func TestNoWayOfPrintingShowsAKey(t *testing.T) {
	m := newMemory(t, nil)
	if err := m.Rotate(start, 0); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	encoded, err := EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	credentials := Credentials{PrivateKey: encoded, Identity: ServiceID(domain, "orders")}
	var b bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&b, nil)), slog.New(slog.NewJSONHandler(&b, nil))} {
		log.Info("all", "state", *m.saved, "root", m.saved.Roots[0], "roots", m.saved.Roots, "issuer", m.issuer, "credentials", credentials, "pointer", &credentials, "list", []Credentials{credentials}, "pair", m.saved.Intermediate)
	}
	for _, v := range []any{*m.saved, m.saved, m.saved.Roots[0], m.saved.Roots, m.saved.Intermediate, m.issuer, credentials, &credentials, m.Status()} {
		fmt.Fprintf(&b, "%v %+v %#v %s %q\n", v, v, v, v, v)
	}
	data, err := json.Marshal([]any{credentials, &credentials, m.Status(), m.saved, m.saved.Roots, m.issuer})
	if err != nil {
		t.Fatal(err)
	}
	b.Write(data)
	wantNoKey(t, b.String(), append(keysOf(*m.saved), raw)...)
}

func keysOf(s State) [][]byte {
	keys := [][]byte{s.TokenKey, s.Intermediate.Key}
	for _, r := range s.Roots {
		keys = append(keys, r.Key)
	}
	return keys
}

// wantNoKey looks for keys in any usual form; 12 bytes in each alignment of base64
// are enough to tell.
func wantNoKey(t *testing.T, text string, keys ...[]byte) {
	t.Helper()
	for _, key := range keys {
		if len(key) > 68 {
			key = key[36:68] // what is secret of PKCS #8 with a P-256 key; the rest is the public one
		}
		forms := []string{
			string(key), hex.EncodeToString(key), fmt.Sprint(key), strings.Trim(fmt.Sprint(key[:12]), "[]"),
			base64.StdEncoding.EncodeToString(key[:12]), base64.StdEncoding.EncodeToString(key[1:13]), base64.StdEncoding.EncodeToString(key[2:14]),
			fmt.Sprintf("%#v", key),
		}
		for _, form := range forms {
			if strings.Contains(text, form) {
				t.Errorf("key bytes %q are shown", form)
			}
		}
	}
	if strings.Contains(text, "PRIVATE KEY") {
		t.Error("a private key is shown")
	}
}
