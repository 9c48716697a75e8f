// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/outrigger-mesh/outrigger/pkg/statefile"
)

// listenAddress is a checked value of --http or --xds.
type listenAddress struct {
	flag, network, address string
	loopback               bool // nobody outside this host can reach it
}

func parseListen(flag, value string) (listenAddress, error) {
	if path, ok := strings.CutPrefix(value, "unix:"); ok {
		if path == "" || len(path) > 107 {
			return listenAddress{}, exitWith(exitUsage, "%s: want unix:PATH with a path of 1 to 107 bytes", flag)
		}
		return listenAddress{flag, "unix", path, true}, nil
	}
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return listenAddress{}, exitWith(exitUsage, "%s: want HOST:PORT or unix:PATH, got %q", flag, value)
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n < 0 || n > 65535 {
		return listenAddress{}, exitWith(exitUsage, "%s: want a port from 0 to 65535, got %q", flag, port)
	}
	a := listenAddress{flag, "tcp", value, host == "localhost"}
	if ip, err := netip.ParseAddr(host); err == nil {
		a.loopback = ip.Unmap().IsLoopback()
	} else if host != "" && host != "localhost" {
		return listenAddress{}, exitWith(exitUsage, "%s: want an IP address or localhost, got %q", flag, host)
	}
	return a, nil
}

// listen opens the address. A taken port is an error that names the flag to change.
func (a listenAddress) listen() (net.Listener, error) {
	l, err := net.Listen(a.network, a.address)
	if errors.Is(err, syscall.EADDRINUSE) && a.network == "unix" && staleSocket(a.address) {
		if err = os.Remove(a.address); err == nil {
			l, err = net.Listen(a.network, a.address)
		}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, exitWith(exitCannotServe, "%s %s: the address is taken by another process; stop that one, or choose another address with %s", a.flag, a.address, a.flag)
	case err != nil:
		return nil, exitWith(exitCannotServe, "%s %s: %w", a.flag, a.address, err)
	}
	if a.network == "unix" {
		if err := os.Chmod(a.address, 0o600); err != nil {
			return nil, errors.Join(exitWith(exitCannotServe, "%s: %w", a.flag, err), l.Close())
		}
	}
	return l, nil
}

// staleSocket says whether nobody listens on a socket file any more.
func staleSocket(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close() // somebody answered; nothing was sent
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

const minTokenBytes = 16

func readToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", exitWith(exitUsage, "--token-file: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if len(token) < minTokenBytes || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", exitWith(exitUsage, "--token-file: %s: want at least %d printable characters without spaces", path, minTokenBytes)
	}
	return token, nil
}

// makeToken reads the token in the data folder, or makes it at the first start.
func makeToken(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "token")
	info, err := os.Stat(path)
	if err == nil {
		if info.Mode().Perm()&0o077 != 0 {
			return "", fmt.Errorf("%s can be read by others (mode %v): chmod 600 it", path, info.Mode().Perm())
		}
		return readToken(path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var raw [32]byte
	rand.Read(raw[:]) // never fails
	token := hex.EncodeToString(raw[:])
	return token, statefile.Replace(path, []byte(token+"\n"))
}
