// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Host is how the host resolves names: its resolv.conf and its hosts file, which
// are looked at again every five seconds at most. Any goroutine may use it.
type Host struct {
	ResolvConf, Hosts string // paths; "" for those of the system

	mu    sync.Mutex
	known hostSettings
	err   error
	at    time.Time
}

type hostSettings struct {
	resolvers []netip.AddrPort
	search    []string // without dots at their ends
	ndots     int
	hosts     map[string][]netip.Addr // by lower-case name
}

const (
	hostEvery = 5 * time.Second
	maxSearch = 6       // as resolv.conf(5)
	maxFile   = 1 << 20 // bytes that are read of a file
)

// settings are those of the files. Without resolvers there is an error, and the
// rest counts.
func (h *Host) settings() (hostSettings, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); h.at.IsZero() || now.Sub(h.at) >= hostEvery {
		conf, hosts := h.ResolvConf, h.Hosts
		if conf == "" {
			conf = "/etc/resolv.conf"
		}
		if hosts == "" {
			hosts = "/etc/hosts"
		}
		h.known = hostSettings{ndots: 1}
		h.known.resolvers, h.err = Resolvers(conf)
		h.known.search, h.known.ndots = readSearch(conf)
		h.known.hosts = readHosts(hosts)
		h.at = now
	}
	return h.known, h.err
}

// candidates are the complete names that a name may stand for, in the order in
// which they are asked for.
func (s *hostSettings) candidates(name string, noSearch bool) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	asIs := name + "."
	if noSearch || len(s.search) == 0 {
		return []string{asIs}
	}
	var out []string
	for _, d := range s.search {
		if full := name + "." + d + "."; len(full) <= 254 {
			out = append(out, full)
		}
	}
	if strings.Count(name, ".") >= s.ndots {
		return append([]string{asIs}, out...)
	}
	return append(out, asIs)
}

// readSearch reads search, domain and the option ndots; the last line of each counts.
func readSearch(path string) (search []string, ndots int) {
	ndots = 1
	eachLine(path, func(words []string) {
		switch words[0] {
		case "search", "domain":
			search = nil
			for _, d := range words[1:] {
				if d = strings.Trim(d, "."); d != "" && len(search) < maxSearch {
					search = append(search, d)
				}
			}
		case "options":
			for _, o := range words[1:] {
				if v, ok := strings.CutPrefix(o, "ndots:"); ok {
					if n, err := strconv.Atoi(v); err == nil {
						ndots = min(max(n, 0), 15)
					}
				}
			}
		}
	})
	return search, ndots
}

// readHosts reads a hosts(5) file. localhost is this host whether it is in there
// or not (RFC 6761, 6.3).
func readHosts(path string) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	eachLine(path, func(words []string) {
		a, err := netip.ParseAddr(words[0])
		if err != nil {
			return
		}
		for _, name := range words[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if !slices.Contains(out[name], a.Unmap()) {
				out[name] = append(out[name], a.Unmap())
			}
		}
	})
	if out["localhost"] == nil {
		out["localhost"] = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	return out
}

// eachLine calls f with the words of each line that has any, without comments. A
// file that cannot be read has none, and what comes behind a line that is too long
// is not read.
func eachLine(path string, f func(words []string)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	s := bufio.NewScanner(io.LimitReader(file, maxFile))
	for s.Scan() {
		line := s.Text()
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		if words := strings.Fields(line); len(words) > 0 {
			f(words)
		}
	}
}
