// SPDX-License-Identifier: Apache-2.0

package statefulsession

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrigger-mesh/outrigger/pkg/codec"
	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

type kind uint8

const (
	stateless kind = iota // no session_state: the filter does nothing
	byCookie
	byHeader
)

// Config are the settings of the filter, or of a route.
type Config struct {
	kind       kind
	name       string // of the cookie, or of the header in lower case
	path       string // of the cookie
	ttl        int64  // seconds; 0: a session cookie
	attributes string // of Set-Cookie, after Max-Age
	strict     bool
	notFound   int // status where the endpoint is not there; 0: 503
	// Of values that are encrypted; outdated is nil where they are not.
	keys     keys   // of files
	secret   string // the name of the one with the keys, in place of files
	wait     time.Duration
	with     []byte // what values are bound to: kind and name of the state
	outdated *outdated
}

// routeConfig are settings of a route; config is nil where it disables the filter.
type routeConfig struct{ config *Config }

// covers reports whether clients send the cookie with requests for the path.
func (c *Config) covers(path []byte) bool {
	if c.path == "" || c.path == "/" {
		return true
	}
	rest, ok := bytes.CutPrefix(path, []byte(c.path))
	return ok && (strings.HasSuffix(c.path, "/") || len(rest) == 0 || bytes.IndexByte([]byte("/?#"), rest[0]) >= 0)
}

// Overrides implements filter.Overrider.
func (c *Config) Overrides(path []byte) (by string, strict bool) {
	switch {
	case c == nil || c.kind == stateless || !c.covers(path):
		return "", false
	case c.kind == byCookie:
		return "the cookie " + c.name, c.strict
	}
	return "the header " + c.name, c.strict
}

// Overrides implements filter.Overrider.
func (r *routeConfig) Overrides(path []byte) (by string, strict bool) {
	return r.config.Overrides(path)
}

var (
	_ filter.Overrider = (*Config)(nil)
	_ filter.Overrider = (*routeConfig)(nil)
)

const (
	cookieURL = "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
	headerURL = "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState"
)

// parse reads StatefulSession by hand: this package is linked into the data path.
func parse(message []byte) (any, error) { return parseConfig(message) }

func parseConfig(message []byte) (*Config, error) {
	c := new(Config)
	err := eachField(message, func(num protowire.Number, number uint64, b []byte) error {
		switch num {
		case 1:
			return within("session_state", c.state(b))
		case 2:
			c.strict = number != 0
		case 3: // stat_prefix: statistics only
		case 4:
			if number != 0 && (number < 200 || number > 599) {
				return fmt.Errorf("status_on_strict_destination_not_found: must be between 200 and 599, is %d", number)
			}
			c.notFound = int(number)
		default:
			return fmt.Errorf("field %d: not supported", num)
		}
		return nil
	})
	return c, err
}

// parseRoute reads StatefulSessionPerRoute.
func parseRoute(message []byte) (any, error) {
	r, given := new(routeConfig), false
	err := eachField(message, func(num protowire.Number, number uint64, b []byte) (err error) {
		given = true
		switch num {
		case 1:
			if r.config = nil; number == 0 {
				return errors.New("disabled: must be true")
			}
		case 2:
			r.config, err = parseConfig(b)
			return within("stateful_session", err)
		default:
			return fmt.Errorf("field %d: not supported", num)
		}
		return nil
	})
	if !given && err == nil {
		err = errors.New("has neither disabled nor stateful_session")
	}
	return r, err
}

// state reads the TypedExtensionConfig of session_state.
func (c *Config) state(b []byte) error {
	return eachField(b, func(num protowire.Number, _ uint64, b []byte) error {
		if num != 2 {
			return nil // the name
		}
		var url string
		var message []byte
		if err := eachField(b, func(num protowire.Number, _ uint64, b []byte) error {
			if num == 1 {
				url = string(b)
			} else {
				message = b
			}
			return nil
		}); err != nil {
			return err
		}
		switch url {
		case cookieURL:
			c.kind = byCookie
			err := eachField(message, func(num protowire.Number, _ uint64, b []byte) error {
				if num != 1 {
					return fmt.Errorf("field %d: not supported", num)
				}
				return c.cookie(b)
			})
			if c.name == "" && err == nil {
				err = errors.New("name: is empty")
			}
			return within("typed_config.cookie", err)
		case headerURL:
			c.kind = byHeader
			err := eachField(message, func(_ protowire.Number, _ uint64, b []byte) error {
				c.name = strings.ToLower(string(b))
				return nil
			})
			if err == nil {
				err = within("name", headerName(c.name))
			}
			return within("typed_config", err)
		case typedStructURL:
			return within("typed_config", c.encrypted(message))
		}
		return fmt.Errorf("typed_config: unsupported type %q: only cookies and headers hold sessions, encrypted in a TypedStruct of %s", url, EncryptedURL)
	})
}

// cookie reads envoy.type.http.v3.Cookie.
func (c *Config) cookie(b []byte) error {
	var more strings.Builder
	err := eachField(b, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			if c.name = string(b); !token(c.name) {
				return fmt.Errorf("name: %q is no cookie name", c.name)
			}
		case 2:
			return within("ttl", eachField(b, func(num protowire.Number, number uint64, _ []byte) error {
				if num == 1 {
					if c.ttl = int64(number); c.ttl < 0 || c.ttl > 100*365*86400 {
						return fmt.Errorf("must be between 0s and 100 years, is %ds", c.ttl)
					}
				}
				return nil
			}))
		case 3:
			if c.path = string(b); !clean(c.path) {
				return fmt.Errorf("path: %q is no cookie path", c.path)
			}
		case 4:
			return within("attributes", attribute(&more, b))
		default:
			return fmt.Errorf("field %d: not supported", num)
		}
		return nil
	})
	if c.path != "" {
		c.attributes = "; Path=" + c.path
	}
	c.attributes += more.String() + "; HttpOnly"
	return err
}

func attribute(to *strings.Builder, b []byte) error {
	var name, value string
	err := eachField(b, func(num protowire.Number, _ uint64, b []byte) error {
		if num == 1 {
			name = string(b)
		} else {
			value = string(b)
		}
		return nil
	})
	if !token(name) || !clean(value) {
		return errors.Join(err, fmt.Errorf("%q with the value %q is no attribute", name, value))
	}
	to.WriteString("; " + name)
	if value != "" {
		to.WriteString("=" + value)
	}
	return err
}

// token reports whether s is a token of RFC 9110 §5.6.2.
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// headerName checks the name of a header, in lower case: one that belongs to the connection
// would end up in responses beside what the proxy writes itself.
func headerName(s string) error {
	switch codec.LookupString(s) {
	case codec.NameConnection, codec.NameContentLength, codec.NameExpect, codec.NameHost, codec.NameHTTP2Settings, codec.NameKeepAlive,
		codec.NameProxyConnection, codec.NameTE, codec.NameTrailer, codec.NameTransferEncoding, codec.NameUpgrade:
		return fmt.Errorf("%q belongs to the connection or says where a request goes: it cannot hold a session", s)
	}
	if !token(s) {
		return fmt.Errorf("%q is no header name", s)
	}
	return nil
}

// clean reports whether s may be the value of an attribute of Set-Cookie.
func clean(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == ';' {
			return false
		}
	}
	return true
}

func within(field string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// eachField goes through the fields of a message: a varint is in number, a message
// or text in b.
func eachField(message []byte, do func(num protowire.Number, number uint64, b []byte) error) error {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("not a message: %w", protowire.ParseError(n))
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(num, typ, message); n < 0 {
			return fmt.Errorf("field %d: %w", num, protowire.ParseError(n))
		}
		var number uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			number, _ = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			b, _ = protowire.ConsumeBytes(message)
		}
		if err := do(num, number, b); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}
