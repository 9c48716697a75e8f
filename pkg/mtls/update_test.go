// SPDX-License-Identifier: Apache-2.0

package mtls_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/mtls"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// traffic is one direction of TLS 1.3 by hand: what no client of crypto/tls sends.
type traffic struct {
	t      testing.TB
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func newTraffic(t testing.TB, secret []byte) *traffic {
	x := &traffic{t: t}
	x.use(secret)
	return x
}

func (x *traffic) use(secret []byte) {
	b, err := aes.NewCipher(x.expand(secret, "key", 16))
	must(x.t, err)
	x.aead, err = cipher.NewGCM(b)
	must(x.t, err)
	x.iv, x.secret, x.seq = x.expand(secret, "iv", 12), secret, 0
}

// expand is HKDF-Expand-Label (RFC 8446 §7.1).
func (x *traffic) expand(secret []byte, label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(6+len(label)))
	info = append(append(info, "tls13 "+label...), 0)
	b, err := hkdf.Expand(sha256.New, secret, string(info), n)
	must(x.t, err)
	return b
}

func (x *traffic) update() { x.use(x.expand(x.secret, "traffic upd", 32)) }

func (x *traffic) nonce() []byte {
	n := bytes.Clone(x.iv)
	for i := range 8 {
		n[4+i] ^= byte(x.seq >> (56 - 8*i))
	}
	x.seq++
	return n
}

func (x *traffic) seal(kind byte, plain []byte) []byte {
	head := []byte{23, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(plain)+1+16))
	return x.aead.Seal(head, x.nonce(), append(bytes.Clone(plain), kind), head)
}

// open returns the first record of b and what follows.
func (x *traffic) open(b []byte) (kind byte, plain, rest []byte) {
	x.t.Helper()
	n := 5 + int(binary.BigEndian.Uint16(b[3:]))
	p, err := x.aead.Open(nil, x.nonce(), b[5:n], b[:5])
	must(x.t, err)
	return p[len(p)-1], p[:len(p)-1], b[n:]
}

func TestKeyUpdatesAreFollowedAndAnswered(t *testing.T) {
	var log bytes.Buffer
	s, _, _ := sessionOf(t, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &log, CurvePreferences: []tls.CurveID{tls.X25519}})
	secret := func(label string) []byte {
		for line := range strings.SplitSeq(log.String(), "\n") {
			if f := strings.Fields(line); len(f) == 3 && f[0] == label {
				b, err := hex.DecodeString(f[2])
				must(t, err)
				return b
			}
		}
		t.Fatalf("no %s", label)
		return nil
	}
	if s.Info().CipherName() != "TLS_AES_128_GCM_SHA256" {
		t.Skip("another cipher suite: " + s.Info().CipherName())
	}
	up, down := newTraffic(t, secret("CLIENT_TRAFFIC_SECRET_0")), newTraffic(t, secret("SERVER_TRAFFIC_SECRET_0"))
	for round := range 3 {
		in := up.seal(23, []byte("before"))
		in = append(in, up.seal(22, []byte{24, 0, 0, 1, 1})...) // update_requested
		up.update()
		in = append(in, up.seal(23, []byte("after"))...)
		plain, reply, err := s.Open(nil, in)
		if err != nil || string(plain) != "beforeafter" {
			t.Fatalf("round %d: %q, %v", round, plain, err)
		}
		kind, answer, rest := down.open(reply)
		if kind != 22 || !bytes.Equal(answer, []byte{24, 0, 0, 1, 0}) || len(rest) != 0 {
			t.Fatalf("round %d: answered by %d %x", round, kind, answer)
		}
		down.update()
		if kind, got, _ := down.open(s.Seal(nil, []byte("pong"))); kind != 23 || string(got) != "pong" {
			t.Fatalf("round %d: %d %q", round, kind, got)
		}
	}
	plain, reply, err := s.Open(nil, append(up.seal(23, []byte("last")), up.seal(21, []byte{1, 0})...))
	if err != io.EOF || string(plain) != "last" || len(reply) != 0 {
		t.Errorf("the end: %q, %x, %v", plain, reply, err)
	}
}

func TestFloodsOfKeyUpdatesEnd(t *testing.T) {
	var log bytes.Buffer
	s, _, _ := sessionOf(t, &tls.Config{InsecureSkipVerify: true, KeyLogWriter: &log})
	line := log.String()[strings.Index(log.String(), "CLIENT_TRAFFIC_SECRET_0"):]
	secret, err := hex.DecodeString(strings.Fields(line)[2])
	must(t, err)
	up := newTraffic(t, secret)
	for range 100 {
		if _, _, err = s.Open(nil, up.seal(22, []byte{24, 0, 0, 1, 0})); err != nil {
			return
		}
		up.update()
	}
	t.Error("100 key updates without data were taken")
}

func TestRenegotiationIsRefused(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl")
	}
	ca := newAuthority(t, "ca")
	r := newRig(t, mtls.Limits{})
	to := r.serve(&resource.DownstreamTLS{CommonTLS: resource.CommonTLS{Certificates: []*resource.TLSCertificate{ca.issue([]string{"a.example"}, nil).res()}}})
	cmd := exec.Command(path, "s_client", "-connect", to.String(), "-tls1_2", "-legacy_renegotiation")
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	receive(t, "handshake", r.infos)
	_, err = io.WriteString(in, "R\n")
	must(t, err)
	if err := receive(t, "close", r.ends); err == nil {
		t.Error("the connection ended in order")
	}
	_ = in.Close()
	_ = cmd.Wait() // it fails, being refused
}
