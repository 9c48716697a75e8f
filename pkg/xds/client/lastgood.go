// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/outrigger-mesh/outrigger/pkg/statefile"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

const (
	// cacheGrace is how long a fresh configuration may take at start before the
	// last good copy serves. A failed connection ends it at once.
	cacheGrace = 700 * time.Millisecond
	// The copy is written this long after a change, and not more often than that.
	saveDelay = time.Second
	saveEvery = 5 * time.Second

	lastGoodFile  = "xds-last-good"
	lastGoodMagic = "outrigger xds 1\n"
	// identityURL marks the first record, which says whose configuration it is.
	identityURL = "outrigger/identity"
	// maxLastGood bounds the file.
	maxLastGood = 512 << 20
)

// LastGood keeps the last complete configuration in a folder, as received, with
// a checksum. It holds no secrets: those are of types that it does not keep.
type LastGood struct {
	dir      string
	pending  []*entry // read, not yet used
	lastSave time.Time
	saving   chan struct{} // closed when the write under way is done
	foreign  atomic.Bool   // the folder is another process's
}

// NewLastGood keeps the configuration in dir, which must exist. Only one client
// may use a folder.
func NewLastGood(dir string) *LastGood { return &LastGood{dir: dir} }

// SetForeign says that another process owns the folder, or that it does not any more:
// while it does, nothing is written. Any goroutine may call it; a nil LastGood has none.
func (l *LastGood) SetForeign(is bool) {
	if l != nil {
		l.foreign.Store(is)
	}
}

// open reads the copy. A missing one is no error; a broken one is an error and
// not used.
func (l *LastGood) open(c *Client) error {
	if l == nil {
		return nil
	}
	path := filepath.Join(l.dir, lastGoodFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxLastGood+1))
	if err != nil {
		return err
	}
	list, err := c.decodeLastGood(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	l.pending = list
	return nil
}

// decodeLastGood checks and decodes the contents of the file. A resource that
// this version refuses makes the copy incomplete, so none of it is used.
func (c *Client) decodeLastGood(data []byte) ([]*entry, error) {
	body, ok := bytes.CutPrefix(data, []byte(lastGoodMagic))
	if !ok || len(body) < 2*sha256.Size+1 || body[2*sha256.Size] != '\n' {
		return nil, errors.New("is no configuration of this version")
	}
	sum, body := string(body[:2*sha256.Size]), body[2*sha256.Size+1:]
	if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != sum {
		return nil, errors.New("the checksum does not match")
	}
	r := bytes.NewReader(body)
	var out []*entry
	for first := true; ; first = false {
		var m discoveryv3.DeltaDiscoveryResponse
		err := protodelim.UnmarshalOptions{MaxSize: int64(len(body))}.UnmarshalFrom(r, &m) // never more than there is
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		case first && (m.GetTypeUrl() != identityURL || m.GetSystemVersionInfo() != c.identity()):
			return nil, &foreignError{maker: m.GetNonce(), own: c.maker()}
		case first:
			continue
		}
		kind, ok := decode.KindOf(m.GetTypeUrl())
		if !ok {
			continue
		}
		for _, res := range m.GetResources() {
			d, err := c.dec.Decode(kind, res.GetName(), res.GetResource())
			if err != nil {
				return nil, err
			}
			out = append(out, &entry{
				kind: kind, name: res.GetName(), version: res.GetVersion(), bytes: res.GetResource().GetValue(),
				res: d, updated: c.bootTime, stale: true,
			})
		}
	}
}

// foreignError is returned for a copy of another node or management server, as it is
// left where one of them was changed on purpose.
type foreignError struct {
	maker string // the address it came from; empty in a copy of an older version
	own   string // the address of this client's own server
}

func (e *foreignError) Error() string {
	switch e.maker {
	case "":
		return "belongs to another node or management server"
	case e.own:
		return "was made for another node"
	}
	return "was made by " + e.maker
}

// maker is the address of the management server, for who reads the log.
func (c *Client) maker() string {
	for _, s := range []*decode.Source{c.cfg.Bootstrap.ADS, c.cfg.Bootstrap.LDS, c.cfg.Bootstrap.CDS} {
		if s == nil {
			continue
		}
		if at := cmp.Or(s.Service.Target, s.Service.Cluster, s.Path); at != "" {
			return at
		}
	}
	return ""
}

// identity is a digest of whose configuration it is: node and management server.
func (c *Client) identity() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q", c.node.GetId(), c.node.GetCluster())
	for _, s := range []*decode.Source{c.cfg.Bootstrap.ADS, c.cfg.Bootstrap.LDS, c.cfg.Bootstrap.CDS} {
		if s != nil {
			fmt.Fprintf(h, " %d %q %q %q", s.Kind, s.Service.Cluster, s.Service.Target, s.Path)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// useCache puts the last good copy to use while there is no fresh configuration
// and none seems to come.
func (c *Client) useCache(now time.Time) {
	at := c.cacheAt()
	if at.IsZero() || now.Before(at) {
		return
	}
	for _, e := range c.cfg.Store.pending {
		if c.store.latest[e.kind][e.name] != nil || decode.TypeOf(e.kind).Full && c.anyAnswer(e.kind) {
			continue
		}
		c.store.put(e)
		c.stale = true
	}
	c.cfg.Store.pending = nil
	c.rewant = true
	if c.stale {
		c.log.Warn("the management server is away: the last good configuration serves")
	}
}

// cacheAt is when the last good copy is due; zero: never.
func (c *Client) cacheAt() time.Time {
	if c.cfg.Store == nil || len(c.cfg.Store.pending) == 0 || c.snapshot != nil {
		return time.Time{}
	}
	for _, s := range c.sources {
		if s.failures > 0 {
			return c.started
		}
	}
	return c.started.Add(cacheGrace)
}

func (c *Client) anyAnswer(kind decode.Kind) bool {
	for _, s := range c.sources {
		if s.stream.Answered(kind) {
			return true
		}
	}
	return false
}

// fromCache reports whether clusters or listeners in hold are those of the last
// good copy.
func (c *Client) fromCache() bool {
	if !c.stale {
		return false
	}
	for _, k := range []decode.Kind{decode.Listener, decode.Cluster} {
		for _, e := range c.store.latest[k] {
			if e.stale {
				return true
			}
		}
	}
	c.stale = false
	return false
}

// schedule plans a write of the copy after a change.
func (c *Client) schedule(now time.Time) {
	if c.cfg.Store == nil || c.cached || !c.saveAt.IsZero() {
		return
	}
	c.saveAt = now.Add(saveDelay)
	if soonest := c.cfg.Store.lastSave.Add(saveEvery); soonest.After(c.saveAt) {
		c.saveAt = soonest
	}
}

// save writes the copy if it is due; final writes at once what is planned.
func (c *Client) save(final bool) {
	l := c.cfg.Store
	now := time.Now()
	if l == nil || c.saveAt.IsZero() || !final && now.Before(c.saveAt) {
		return
	}
	if l.foreign.Load() {
		c.saveAt = now.Add(saveDelay) // it may become ours
		return
	}
	if l.saving != nil {
		select {
		case <-l.saving:
		default:
			if !final {
				c.saveAt = now.Add(saveDelay)
				return
			}
			<-l.saving
		}
	}
	c.saveAt, l.lastSave = time.Time{}, now
	list := c.copyOut()
	done := make(chan struct{})
	l.saving = done
	write := func() {
		defer close(done)
		if err := l.write(list); err != nil {
			c.log.Warn("the last good configuration cannot be kept", "error", err)
		}
	}
	if final {
		write()
		return
	}
	// Ends when the file is written; Client.stop waits for it.
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		write()
	}()
}

// copyOut collects what is in use, by reference: entries do not change.
func (c *Client) copyOut() []*discoveryv3.DeltaDiscoveryResponse {
	out := []*discoveryv3.DeltaDiscoveryResponse{{TypeUrl: identityURL, SystemVersionInfo: c.identity(), Nonce: c.maker()}}
	for k := range c.asm.active {
		if decode.Kind(k) == decode.Secret {
			continue // never on disk
		}
		t := decode.TypeOf(decode.Kind(k))
		m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: t.URL}
		for _, e := range c.asm.active[k] {
			if e.static || e.bytes == nil || holdsKey(e.res.Value) {
				continue
			}
			m.Resources = append(m.Resources, &discoveryv3.Resource{
				Name: e.name, Version: e.version, Resource: &anypb.Any{TypeUrl: t.URL, Value: e.bytes},
			})
		}
		if len(m.Resources) > 0 {
			out = append(out, m)
		}
	}
	return out
}

// holdsKey reports whether a resource has a private key or a ticket key in itself.
func holdsKey(v any) bool {
	own := func(c *resource.CommonTLS) bool {
		for _, t := range c.Certificates {
			if len(t.Key.Inline) > 0 {
				return true
			}
		}
		return false
	}
	switch r := v.(type) {
	case *resource.Cluster:
		for i := range r.SocketMatches {
			if t := r.SocketMatches[i].TLS; t != nil && own(&t.CommonTLS) {
				return true
			}
		}
		return r.TLS != nil && own(&r.TLS.CommonTLS)
	case *resource.Listener:
		for _, fc := range append([]*resource.FilterChain{r.DefaultFilterChain}, r.FilterChains...) {
			if fc != nil && fc.TLS != nil && (own(&fc.TLS.CommonTLS) || fc.TLS.Tickets != nil) {
				return true
			}
		}
	}
	return false
}

// write replaces the file: a new one is written and synced, then renamed.
func (l *LastGood) write(list []*discoveryv3.DeltaDiscoveryResponse) error {
	var body bytes.Buffer
	for _, m := range list {
		if _, err := protodelim.MarshalTo(&body, m); err != nil {
			return err
		}
	}
	if body.Len() > maxLastGood {
		return fmt.Errorf("the configuration has %d bytes, at most %d are kept", body.Len(), maxLastGood)
	}
	sum := sha256.Sum256(body.Bytes())
	f, err := os.CreateTemp(l.dir, lastGoodFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the rename
	for _, part := range [][]byte{[]byte(lastGoodMagic), []byte(hex.EncodeToString(sum[:]) + "\n"), body.Bytes()} {
		if _, err := f.Write(part); err != nil {
			f.Close()
			return err
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(l.dir, lastGoodFile)); err != nil {
		return err
	}
	return statefile.SyncFolder(l.dir)
}
