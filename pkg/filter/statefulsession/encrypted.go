// SPDX-License-Identifier: Apache-2.0

package statefulsession

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/lb"
)

// A session's value may be encrypted, so that clients neither learn the addresses of
// endpoints nor choose one. That is our own type of session_state, a TypedStruct; Envoys
// neither write nor read such values.
const (
	typedStructURL = "type.googleapis.com/xds.type.v3.TypedStruct"
	// EncryptedURL is what the TypedStruct stands for.
	EncryptedURL = "type.googleapis.com/io.outrigger.v1.EncryptedSession"
)

const (
	maxKeys     = 2
	keyBytes    = 32 // AES-256
	maxKeyFile  = 1024
	sealedBytes = 68 // the message with its length, filled up: all values are of one length
	sealedText  = (sealedBytes + 28) / 3 * 4
)

// keys are one or two: the first encrypts, all decrypt. They are immutable, may be used by
// all workers, and make their own random nonces.
type keys []cipher.AEAD

// outdated is in an exchange's slot in place of the settings: the session is to be told
// again, by the newest key.
type outdated struct{ config *Config }

// encrypted reads the TypedStruct of an encrypted state:
//
//	cookie: {name: sid, path: /, ttl: 1h, attributes: {SameSite: Strict}}
//	header: x-session                # or this
//	keyFiles: [/run/key-2, /run/key-1]
//	scope: v2                        # values of another scope are none here
//	keySecret: {name: keys, initialFetchTimeout: 2s}   # or this, of ADS
func (c *Config) encrypted(b []byte) error {
	var url string
	var value structpb.Struct
	if err := eachField(b, func(num protowire.Number, _ uint64, b []byte) error {
		if num == 1 {
			url = string(b)
			return nil
		}
		return proto.Unmarshal(b, &value)
	}); err != nil {
		return err
	}
	if url != EncryptedURL {
		return fmt.Errorf("type_url: unsupported type %q: want %s", url, EncryptedURL)
	}
	var files []string
	var scope string
	for name, v := range value.GetFields() {
		var err error
		switch name {
		case "cookie":
			err = c.encryptedCookie(v.GetStructValue())
		case "header":
			c.name = strings.ToLower(v.GetStringValue())
			err = headerName(c.name)
		case "scope":
			scope = v.GetStringValue()
		case "keySecret":
			err = c.keySecret(v.GetStructValue())
		case "keyFiles":
			for _, f := range v.GetListValue().GetValues() {
				files = append(files, f.GetStringValue())
			}
		default:
			err = errors.New("not supported")
		}
		if err != nil {
			return within("value."+name, err)
		}
	}
	fields := value.GetFields()
	switch {
	case (fields["cookie"] == nil) == (fields["header"] == nil):
		return errors.New("value: want exactly one of cookie and header")
	case fields["cookie"] != nil:
		c.kind = byCookie
	default:
		c.kind = byHeader
	}
	c.with, c.outdated = fmt.Appendf(nil, "outrigger session %d %s", c.kind, c.name), &outdated{c}
	if scope != "" {
		c.with = append(append(c.with, 0), scope...)
	}
	if c.secret != "" {
		if fields["keyFiles"] != nil {
			return errors.New("value: want exactly one of keyFiles and keySecret")
		}
		return nil
	}
	return within("value.keyFiles", c.readKeys(files))
}

func (c *Config) encryptedCookie(s *structpb.Struct) error {
	var more strings.Builder
	for name, v := range s.GetFields() {
		text := v.GetStringValue()
		switch name {
		case "name":
			c.name = text
		case "path":
			if c.path = text; !clean(text) {
				return fmt.Errorf("path: %q is no cookie path", text)
			}
		case "ttl":
			d, err := time.ParseDuration(text)
			if err != nil || d < 0 || d > 100*365*24*time.Hour {
				return fmt.Errorf("ttl: want a duration from 0s to 100 years, such as 1h, got %q", text)
			}
			c.ttl = int64(d / time.Second)
		case "attributes":
			fields := v.GetStructValue().GetFields()
			for _, name := range slices.Sorted(maps.Keys(fields)) {
				value := fields[name].GetStringValue()
				if !token(name) || !clean(value) {
					return fmt.Errorf("attributes: %q with the value %q is no attribute", name, value)
				}
				more.WriteString("; " + name)
				if value != "" {
					more.WriteString("=" + value)
				}
			}
		default:
			return fmt.Errorf("%s: not supported", name)
		}
	}
	if !token(c.name) {
		return fmt.Errorf("name: %q is no cookie name", c.name)
	}
	if c.path != "" {
		c.attributes = "; Path=" + c.path
	}
	c.attributes += more.String() + "; HttpOnly"
	return nil
}

// readKeys reads the keys of files.
func (c *Config) readKeys(files []string) error {
	if len(files) == 0 || len(files) > maxKeys {
		return fmt.Errorf("want one file, or two: the new key's and the old one's; there are %d", len(files))
	}
	for i, name := range files {
		k, err := readKey(name)
		if err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
		c.keys = append(c.keys, k)
	}
	return nil
}

// readKey reads a file with the base64 of 32 bytes. Errors say nothing of what is in it.
func readKey(name string) (cipher.AEAD, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(key) != keyBytes {
		return nil, fmt.Errorf("%s: want the base64 of %d random bytes, as openssl rand -base64 %d writes it", name, keyBytes, keyBytes)
	}
	return newKey(key)
}

func newKey(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// appendSealed appends the text of an encrypted session, by the first key.
func (f *session) appendSealed(dst []byte, c *Config, k keys, a netip.AddrPort, expires int64) []byte {
	f.scratch = appendCookie(append(f.scratch[:0], 0), a, expires)
	f.scratch[0] = byte(len(f.scratch) - 1)
	for len(f.scratch) < sealedBytes {
		f.scratch = append(f.scratch, 0)
	}
	f.sealed = k[0].Seal(f.sealed[:0], nil, f.scratch, c.with)
	return base64.RawURLEncoding.AppendEncode(dst, f.sealed)
}

// open reads an encrypted session; not ok where it is none of ours, or has expired. old:
// it is of a key that is on its way out.
func (f *session) open(c *Config, value []byte) (a netip.AddrPort, old, ok bool) {
	if len(value) != sealedText {
		return a, false, false
	}
	sealed, err := base64.RawURLEncoding.AppendDecode(f.sealed[:0], value)
	f.sealed = sealed
	if err != nil {
		return a, false, false
	}
	for i, k := range f.keysOf(c) {
		plain, err := k.Open(f.scratch[:0], nil, sealed, c.with)
		if err != nil {
			continue
		}
		f.scratch = plain
		if len(plain) != sealedBytes || int(plain[0]) >= sealedBytes {
			return a, false, false
		}
		text, expires, ok := readCookie(plain[1 : 1+plain[0]])
		if !ok || expires != 0 && f.wall()/1e9 > expires {
			return a, false, false
		}
		a, ok = lb.ParseAddress(text)
		return a, i > 0, ok
	}
	return a, false, false
}

// settings are those that the filter has left in an exchange's slot.
func (f *session) settings(x *filter.Exchange) (c *Config, again bool) {
	switch s := x.Slots[f.slot].(type) {
	case *Config:
		return s, false
	case *outdated:
		return s.config, true
	}
	return nil, false
}
