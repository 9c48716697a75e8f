// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// clientUDP is what we say that we take by UDP, and the most that is read: longer
	// answers are fragmented on the way (dnsflagday.net/2020).
	clientUDP = 1232
	// MaxAddresses bounds the addresses of an answer; those beyond are left out.
	MaxAddresses = 1024
	// maxAliases bounds a chain of CNAMEs.
	maxAliases = 16
)

// ErrNone is what Lookup returns where resolvers say that there is no such name,
// or that it has no address of the family. Any other error leaves it open.
var ErrNone = errors.New("no such name, or none with an address")

// Family says which addresses are asked for.
type Family uint8

// The families.
const (
	V6ThenV4 Family = iota // IPv4 only where there is no IPv6 address
	V4
	V6
	V4ThenV6
	Both
)

// Client asks resolvers for addresses. It keeps nothing, so that any number of
// goroutines may use it.
type Client struct {
	Host      *Host            // the host's resolvers, search list and hosts file
	Resolvers []netip.AddrPort // in place of the host's; in their order
	TCP       bool             // never by UDP
	NoSearch  bool             // the search list is not used
	Timeout   time.Duration    // of one query; more than 0
	Tries     int              // queries of one name and family, over all resolvers; more than 0
	Counts    *ClientCounts    // never nil
}

// ClientCounts are a client's counters; they only grow.
type ClientCounts struct {
	Lookups, NotFound, Timeouts, Failures, Spoofed atomic.Uint64
	Pending                                        atomic.Int64
}

// Answer are a name's addresses, in the resolver's order, each once.
type Answer struct {
	Addresses []netip.Addr
	TTL       time.Duration // of the record that is first to end; 0 for those of the hosts file
}

// Lookup returns the addresses of a name. One that does not end in a dot is looked
// up with the host's search list, as resolv.conf(5) has it, and in the hosts file
// before that. It ends with ctx.
func (c *Client) Lookup(ctx context.Context, name string, family Family) (Answer, error) {
	c.Counts.Lookups.Add(1)
	c.Counts.Pending.Add(1)
	defer c.Counts.Pending.Add(-1)
	a, err := c.lookup(ctx, name, family)
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
	case errors.Is(err, ErrNone):
		c.Counts.NotFound.Add(1)
	case errors.As(err, &timeout) && timeout.Timeout():
		c.Counts.Timeouts.Add(1)
		c.Counts.Failures.Add(1)
	default:
		c.Counts.Failures.Add(1)
	}
	return a, err
}

func (c *Client) lookup(ctx context.Context, name string, family Family) (Answer, error) {
	settings, err := c.Host.settings()
	if err != nil && len(c.Resolvers) == 0 {
		return Answer{}, err
	}
	if list := family.of(settings.hosts[strings.ToLower(strings.TrimSuffix(name, "."))]); len(list) > 0 {
		return Answer{Addresses: list}, nil
	}
	resolvers := c.Resolvers
	if len(resolvers) == 0 {
		resolvers = settings.resolvers
	}
	for _, full := range settings.candidates(name, c.NoSearch) {
		a, err := c.families(ctx, resolvers, full, family)
		if !errors.Is(err, ErrNone) {
			return a, err
		}
	}
	return Answer{}, fmt.Errorf("%s: %w", name, ErrNone)
}

// families asks for the families in their order. An error of either counts only
// where the other has no addresses: then it is open whether there are any.
func (c *Client) families(ctx context.Context, resolvers []netip.AddrPort, name string, family Family) (Answer, error) {
	var out Answer
	var failed error
	for _, t := range family.types() {
		a, err := c.ask(ctx, resolvers, name, t)
		switch {
		case err == nil:
			if len(out.Addresses) == 0 || a.TTL < out.TTL {
				out.TTL = a.TTL
			}
			out.Addresses = append(out.Addresses, a.Addresses...)
		case !errors.Is(err, ErrNone):
			failed = errors.Join(failed, err)
		}
		if len(out.Addresses) > 0 && family != Both {
			break
		}
	}
	switch {
	case len(out.Addresses) > 0:
		return out, nil
	case failed != nil:
		return Answer{}, failed
	}
	return Answer{}, ErrNone
}

// ask sends queries of one type until a resolver has answered.
func (c *Client) ask(ctx context.Context, resolvers []netip.AddrPort, name string, t dnsmessage.Type) (Answer, error) {
	q, raw, err := newQuery(name, t)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", name, err)
	}
	for try := range c.Tries {
		to := resolvers[try%len(resolvers)]
		var answer []byte
		if answer, err = c.exchange(ctx, to, raw, q); err == nil {
			var a Answer
			a, err = q.addresses(answer)
			if err == nil || errors.Is(err, ErrNone) {
				return a, err
			}
		}
		err = fmt.Errorf("%s of %s: resolver %s: %w", strings.TrimPrefix(t.String(), "Type"), strings.TrimSuffix(name, "."), to, err)
		if ctx.Err() != nil {
			break
		}
	}
	return Answer{}, err
}

func (c *Client) exchange(ctx context.Context, to netip.AddrPort, raw []byte, q *query) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if !c.TCP {
		answer, err := exchangeUDP(ctx, to, raw, q, clientUDP, &c.Counts.Spoofed)
		if err != nil || len(answer) <= clientUDP && answer[2]&0x02 == 0 { // TC
			return answer, err
		}
	}
	return exchangeTCP(ctx, to, raw, q, &c.Counts.Spoofed)
}

// newQuery makes a recursive query with EDNS0. The id is set when it is sent.
func newQuery(name string, t dnsmessage.Type) (*query, []byte, error) {
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, nil, err
	}
	q := &query{question: dnsmessage.Question{Name: n, Type: t, Class: dnsmessage.ClassINET}}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{RecursionDesired: true})
	var opt dnsmessage.ResourceHeader
	err = errors.Join(
		b.StartQuestions(), b.Question(q.question), b.StartAdditionals(),
		opt.SetEDNS0(clientUDP, dnsmessage.RCodeSuccess, false), b.OPTResource(opt, dnsmessage.OPTResource{}),
	)
	if err != nil {
		return nil, nil, err
	}
	raw, err := b.Finish()
	return q, raw, err
}

// addresses reads an answer: what the name, or what it is an alias of, has.
func (q *query) addresses(raw []byte) (Answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	switch {
	case err != nil:
		return Answer{}, err
	case h.RCode == dnsmessage.RCodeNameError:
		return Answer{}, ErrNone
	case h.RCode != dnsmessage.RCodeSuccess:
		return Answer{}, fmt.Errorf("answers %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
	}
	if err := p.SkipAllQuestions(); err != nil {
		return Answer{}, err
	}
	aliases := map[string]alias{}
	found := map[string]Answer{}
	for {
		rh, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return Answer{}, err
		}
		owner, ttl := strings.ToLower(rh.Name.String()), time.Duration(rh.TTL&(1<<31-1))*time.Second
		switch {
		case rh.Class == dnsmessage.ClassINET && rh.Type == dnsmessage.TypeCNAME:
			r, err := p.CNAMEResource()
			if err != nil {
				return Answer{}, err
			}
			aliases[owner] = alias{strings.ToLower(r.CNAME.String()), ttl}
		case rh.Class == dnsmessage.ClassINET && rh.Type == q.question.Type:
			addr, err := readAddress(&p, rh.Type)
			if err != nil {
				return Answer{}, err
			}
			found[owner] = found[owner].with(addr, ttl)
		default:
			if err := p.SkipAnswer(); err != nil {
				return Answer{}, err
			}
		}
	}
	return follow(strings.ToLower(q.question.Name.String()), aliases, found)
}

type alias struct {
	of  string
	ttl time.Duration
}

func follow(name string, aliases map[string]alias, found map[string]Answer) (Answer, error) {
	least := time.Duration(1<<63 - 1)
	for range maxAliases {
		if a, ok := found[name]; ok {
			a.TTL = min(a.TTL, least)
			return a, nil
		}
		next, ok := aliases[name]
		if !ok {
			return Answer{}, ErrNone
		}
		name, least = next.of, min(least, next.ttl)
	}
	return Answer{}, errors.New("is an alias of an alias, and so on without end")
}

func readAddress(p *dnsmessage.Parser, t dnsmessage.Type) (netip.Addr, error) {
	if t == dnsmessage.TypeA {
		r, err := p.AResource()
		return netip.AddrFrom4(r.A), err
	}
	r, err := p.AAAAResource()
	return netip.AddrFrom16(r.AAAA), err
}

// with adds an address.
func (a Answer) with(addr netip.Addr, ttl time.Duration) Answer {
	if len(a.Addresses) == 0 || ttl < a.TTL {
		a.TTL = ttl
	}
	if len(a.Addresses) < MaxAddresses && !slices.Contains(a.Addresses, addr) {
		a.Addresses = append(a.Addresses, addr)
	}
	return a
}

// types are what is asked for, in this order.
func (f Family) types() []dnsmessage.Type {
	switch f {
	case V4:
		return []dnsmessage.Type{dnsmessage.TypeA}
	case V6:
		return []dnsmessage.Type{dnsmessage.TypeAAAA}
	case V6ThenV4:
		return []dnsmessage.Type{dnsmessage.TypeAAAA, dnsmessage.TypeA}
	}
	return []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
}

// of picks the addresses of a list that the family has.
func (f Family) of(list []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, t := range f.types() {
		for _, a := range list {
			if a.Is4() == (t == dnsmessage.TypeA) {
				out = append(out, a)
			}
		}
		if len(out) > 0 && f != Both {
			break
		}
	}
	return out
}
