// SPDX-License-Identifier: Apache-2.0

package statefulsession

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// defaultKeyWait is how long a configuration waits for its keys: clients lose their
// sessions without them, and all requests fail while routes are not there.
const defaultKeyWait = 2 * time.Second

var _ filter.NeedsSecret = (*Config)(nil)
var _ filter.NeedsSecret = (*routeConfig)(nil)

// NeededSecret implements filter.NeedsSecret.
func (c *Config) NeededSecret() (name string, wait time.Duration) { return c.secret, c.wait }

// NeededSecret implements filter.NeedsSecret.
func (r *routeConfig) NeededSecret() (name string, wait time.Duration) {
	if r.config == nil {
		return "", 0
	}
	return r.config.NeededSecret()
}

// keySecret reads which secret has the keys.
func (c *Config) keySecret(s *structpb.Struct) error {
	c.wait = defaultKeyWait
	for name, v := range s.GetFields() {
		switch name {
		case "name":
			c.secret = v.GetStringValue()
		case "initialFetchTimeout":
			d, err := time.ParseDuration(v.GetStringValue())
			if err != nil || d <= 0 || d > time.Hour {
				return fmt.Errorf("initialFetchTimeout: want a duration from 1ns to 1h, such as 2s, got %q", v.GetStringValue())
			}
			c.wait = d
		default:
			return fmt.Errorf("%s: not supported", name)
		}
	}
	if c.secret == "" {
		return errors.New("name: is empty")
	}
	return nil
}

// keyring has the keys of secrets: the bytes of one key, or of two, the first one first.
// The zero value has none.
type keyring struct {
	bySecret atomic.Pointer[map[string]keys] // immutable
}

// take puts the keys of all secrets that are keys into force.
func (r *keyring) take(all map[string]*resource.Secret) {
	next := map[string]keys{}
	for name, s := range all {
		if k, err := parseKeys(s.Generic); err == nil {
			next[name] = k
		}
	}
	r.bySecret.Store(&next)
}

var errNoKeys = errors.New("want 32 or 64 bytes")

func parseKeys(b []byte) (keys, error) {
	if len(b) != keyBytes && len(b) != maxKeys*keyBytes {
		return nil, errNoKeys
	}
	var out keys
	for ; len(b) > 0; b = b[keyBytes:] {
		k, err := newKey(b[:keyBytes])
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

// keysOf are those that a configuration's values are encrypted with; nil where they have
// not come.
func (f *session) keysOf(c *Config) keys {
	if c.secret == "" {
		return c.keys
	}
	if m := f.ring.bySecret.Load(); m != nil {
		return (*m)[c.secret]
	}
	return nil
}
