// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// guard says who may ask. Three things keep browsers out, whose pages could reach
// a loopback address: a Host that is not this port's (DNS rebinding), an Origin,
// and the fetch metadata of another site.
type guard struct {
	anyHost bool            // a Unix socket: no browser gets there
	names   map[string]bool // hosts in lower case
	anyIP   bool            // bound to all addresses: literals are fine, they cannot be rebound
	token   *tokenFile      // nil: none required
}

func newGuard(address string, bound net.Addr, tokenPath string) (g guard, err error) {
	tcp, ok := bound.(*net.TCPAddr)
	if !ok {
		return guard{anyHost: true}, nil
	}
	g.names = map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}
	if host, _, err := net.SplitHostPort(address); err == nil {
		g.names[strings.ToLower(host)] = true
	}
	if tcp.IP.IsLoopback() {
		g.names[tcp.IP.String()] = true
		return g, nil
	}
	g.names[tcp.IP.String()] = true
	if tcp.IP.IsUnspecified() {
		g.anyIP = true
		if name, err := os.Hostname(); err == nil {
			g.names[strings.ToLower(name)] = true
		}
	}
	if tokenPath == "" {
		return g, errors.New("not on this host alone, so callers need a token: name a token file, or use 127.0.0.1 or unix:PATH")
	}
	g.token = &tokenFile{path: tokenPath}
	if _, err := g.token.hash(); err != nil {
		return g, err
	}
	return g, nil
}

// refuse returns the status and the reason for which a request is not answered; 0
// where it is.
func (g *guard) refuse(r *http.Request) (status int, reason string) {
	if r.Header.Get("Origin") != "" {
		return http.StatusForbidden, "requests of web pages are refused (Origin header)"
	}
	// What is typed in and the links of the home page are fine.
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
		return http.StatusForbidden, "requests of web pages are refused (Sec-Fetch-Site header)"
	}
	if !g.knows(r.Host) {
		return http.StatusForbidden, fmt.Sprintf("host %q is not this port's: use localhost or the address it is bound to", r.Host)
	}
	if g.token == nil {
		return 0, ""
	}
	want, err := g.token.hash()
	if err != nil {
		return http.StatusServiceUnavailable, "the token file cannot be read"
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return http.StatusUnauthorized, "a bearer token is required"
	}
	return 0, ""
}

func (g *guard) knows(hostPort string) bool {
	if g.anyHost {
		return true
	}
	host := hostPort
	if h, _, err := net.SplitHostPort(hostPort); err == nil {
		host = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if g.names[host] {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (g.anyIP || ip.Unmap().IsLoopback())
}

// tokenFile is a file with a token, read again when it changes.
type tokenFile struct {
	path string

	mu   sync.Mutex // guards what follows
	sum  [sha256.Size]byte
	at   time.Time
	size int64
	read bool
}

const minTokenBytes = 16

// hash is the token's. When the file cannot be read any more, the error says so:
// a token that was withdrawn must not go on opening the door.
func (f *tokenFile) hash() ([sha256.Size]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := os.Stat(f.path)
	if err != nil {
		return f.sum, fmt.Errorf("token file: %w", err)
	}
	if f.read && st.ModTime().Equal(f.at) && st.Size() == f.size {
		return f.sum, nil
	}
	if st.Size() > 4<<10 {
		return f.sum, fmt.Errorf("token file %s: larger than 4 KiB", f.path)
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return f.sum, fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if len(token) < minTokenBytes {
		return f.sum, fmt.Errorf("token file %s: the token is shorter than %d characters", f.path, minTokenBytes)
	}
	f.sum, f.at, f.size, f.read = sha256.Sum256([]byte(token)), st.ModTime(), st.Size(), true
	return f.sum, nil
}
