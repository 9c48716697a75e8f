// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// bulky is a certificate with a chain of about a size, below the 256 KiB that
// crypto/tls takes.
func bulky(t *testing.T, size int) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{CommonName: strings.Repeat("x", 2000)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	out := tls.Certificate{PrivateKey: key}
	for n := 0; n < size; n += len(der) {
		out.Certificate = append(out.Certificate, der)
	}
	return out
}

// TestHandshakesThatDoNotEndAreCut: in bytes, with what is read of a client counted
// before crypto/tls has the message that it is part of, and in time.
func TestHandshakesThatDoNotEndAreCut(t *testing.T) {
	t.Parallel() // it mostly waits for the time of a handshake
	d := serveSecure(t, t.TempDir())
	connect := func(t *testing.T) net.Conn {
		t.Helper()
		c, err := net.DialTimeout("tcp", d.mtls, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	wantCut := func(t *testing.T, c net.Conn, err error) {
		t.Helper()
		if err == nil {
			_, err = io.Copy(io.Discard, c)
		}
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("still there after %s", patience)
		}
	}
	wantRefused := func(t *testing.T, count int) {
		t.Helper()
		until(t, fmt.Sprintf("%d handshakes are refused as too long", count), func() bool {
			return d.metric(`callers_refused_total{reason="handshake_too_long"}`) == fmt.Sprint(count)
		})
	}

	t.Run("an endless ClientHello", func(t *testing.T) {
		c := connect(t)
		record := append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 16<<10)...)
		first := bytes.Clone(record)
		copy(first[5:], []byte{1, 0, 0xff, 0xff}) // 65535 bytes, which crypto/tls would wait for
		_, err := c.Write(first)
		for range 1000 {
			if err != nil {
				break
			}
			_, err = c.Write(record)
		}
		wantCut(t, c, err)
		wantRefused(t, 1)
	})
	t.Run("an endless chain", func(t *testing.T) {
		for _, size := range []int{200 << 10, 40 << 10} {
			c := tls.Client(connect(t), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{bulky(t, size)}}) //nolint:gosec // nothing is told
			err := c.Handshake()
			wantCut(t, c, err)
			wantRefused(t, 2)
		}
		// The shorter one was looked at.
		until(t, "the shorter chain is refused for what it says", func() bool { return d.metric(`callers_refused_total{reason="wrong_usage"}`) == "1" })
		wantRefused(t, 2)
	})
	t.Run("silence", func(t *testing.T) {
		c := connect(t)
		wantCut(t, c, nil)
	})
}
