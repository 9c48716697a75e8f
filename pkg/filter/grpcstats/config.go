// SPDX-License-Identifier: Apache-2.0

package grpcstats

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Config says which methods are counted by name.
type Config struct {
	All         bool
	Listed      map[string]map[string]bool // by service and method
	ReplaceDots bool                       // of services' names, by underscores
}

// named reports whether a method is counted under its own name.
func (c *Config) named(service, method []byte) bool {
	return c.All || c.Listed[string(service)][string(method)]
}

// Fields of the message FilterConfig, and of those in it.
const (
	fieldEmitState   = 1
	fieldList        = 2
	fieldAll         = 3
	fieldUpstream    = 4
	fieldReplaceDots = 5

	fieldServices = 1 // of GrpcMethodList
	fieldName     = 1 // of GrpcMethodList.Service
	fieldMethods  = 2
)

// maxListed bounds the methods of a list.
const maxListed = maxMethods

// parse reads the message by hand: this package is linked into the data path.
func parse(config []byte) (any, error) {
	c := &Config{}
	err := eachField(config, func(num protowire.Number, number uint64, bytes []byte) error {
		switch num {
		case fieldAll:
			return eachField(bytes, func(_ protowire.Number, v uint64, _ []byte) error {
				c.All = v != 0
				return nil
			})
		case fieldList:
			return c.list(bytes)
		case fieldReplaceDots:
			c.ReplaceDots = number != 0
		case fieldEmitState:
			if number != 0 {
				return errors.New("emit_filter_state: not supported")
			}
		case fieldUpstream:
			if number != 0 {
				return errors.New("enable_upstream_stats: not supported")
			}
		default:
			return fmt.Errorf("field %d: not supported", num)
		}
		return nil
	})
	return c, err
}

// list reads individual_method_stats_allowlist.
func (c *Config) list(message []byte) error {
	c.Listed = map[string]map[string]bool{}
	n := 0
	return eachField(message, func(num protowire.Number, _ uint64, service []byte) error {
		if num != fieldServices {
			return fmt.Errorf("individual_method_stats_allowlist: field %d: not supported", num)
		}
		name, methods := "", map[string]bool{}
		err := eachField(service, func(num protowire.Number, _ uint64, v []byte) error {
			switch num {
			case fieldName:
				name = string(v)
			case fieldMethods:
				methods[string(v)] = true
			default:
				return fmt.Errorf("individual_method_stats_allowlist: services: field %d: not supported", num)
			}
			return nil
		})
		if n += len(methods); n > maxListed {
			return fmt.Errorf("individual_method_stats_allowlist: more than %d methods", maxListed)
		}
		if name == "" || len(methods) == 0 {
			return errors.Join(err, errors.New("individual_method_stats_allowlist: services: a name and methods are needed"))
		}
		for m := range c.Listed[name] {
			methods[m] = true
		}
		c.Listed[name] = methods
		return err
	})
}

// eachField goes through the fields of a message: a varint is in number, a message
// or text in bytes.
func eachField(b []byte, do func(num protowire.Number, number uint64, bytes []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("not a message: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return fmt.Errorf("field %d: %w", num, protowire.ParseError(n))
		}
		var number uint64
		var bytes []byte
		switch typ {
		case protowire.VarintType:
			number, _ = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, _ = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("field %d: not of its type", num)
		}
		if err := do(num, number, bytes); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
