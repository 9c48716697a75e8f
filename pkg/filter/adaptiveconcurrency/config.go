// SPDX-License-Identifier: Apache-2.0

package adaptiveconcurrency

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Config has Envoy's settings and defaults.
type Config struct {
	Enabled    bool
	Status     int     // of refusals; default 503
	Percentile float64 // sample_aggregate_percentile, default 50

	MaxLimit uint32        // max_concurrency_limit, default 1000
	MinLimit uint32        // min_concurrency_limit, default MinConcurrency
	Update   time.Duration // concurrency_update_interval

	Interval       time.Duration // of measuring the least round-trip time; 0: FixedRTT
	FixedRTT       time.Duration
	RequestCount   uint32  // default 50
	Jitter         float64 // percent of Interval, default 15
	MinConcurrency uint32  // while it is measured, default 3
	Buffer         float64 // percent of it, default 25
}

// parse reads the message AdaptiveConcurrency by hand: this package is linked into the
// data path.
func parse(config []byte) (Config, error) {
	c := Config{Enabled: true, Status: 503, Percentile: 50, MaxLimit: 1000, RequestCount: 50, Jitter: 15, MinConcurrency: 3, Buffer: 25}
	gradient := false
	err := fields(config, "", map[protowire.Number]reader{
		1: {"gradient_controller_config", func(v value, at string) error {
			gradient = true
			return c.gradient(v.bytes, at)
		}},
		2: {"enabled", func(v value, at string) error {
			return fields(v.bytes, at, map[protowire.Number]reader{
				1: {"default_value", func(v value, at string) error {
					c.Enabled = false
					return wrapped(v, at, func(v value) error { c.Enabled = v.number != 0; return nil })
				}},
				2: {"runtime_key", func(v value, at string) error {
					if len(v.bytes) > 0 {
						return fmt.Errorf("%s: not supported; leave it out", at)
					}
					return nil
				}},
			})
		}},
		3: {"concurrency_limit_exceeded_status", func(v value, at string) error {
			return fields(v.bytes, at, map[protowire.Number]reader{1: {"code", func(v value, at string) error {
				if v.number > 599 {
					return fmt.Errorf("%s: %d is no status", at, v.number)
				}
				if v.number >= 400 { // as Envoy: what is no error becomes 503
					c.Status = int(v.number)
				}
				return nil
			}}})
		}},
	})
	if err != nil {
		return c, err
	}
	if !gradient {
		return c, errors.New("gradient_controller_config: is required")
	}
	if c.MinLimit == 0 {
		c.MinLimit = c.MinConcurrency
	}
	if c.MinLimit > c.MaxLimit {
		return c, fmt.Errorf("gradient_controller_config.concurrency_limit_params.max_concurrency_limit: %d is less than the least limit, %d", c.MaxLimit, c.MinLimit)
	}
	return c, nil
}

func (c *Config) gradient(b []byte, at string) error {
	limits, rtt := false, false
	err := fields(b, at, map[protowire.Number]reader{
		1: {"sample_aggregate_percentile", percentInto(&c.Percentile)},
		2: {"concurrency_limit_params", func(v value, at string) error {
			limits = true
			return fields(v.bytes, at, map[protowire.Number]reader{
				2: {"max_concurrency_limit", countInto(&c.MaxLimit)},
				3: {"concurrency_update_interval", durationInto(&c.Update, time.Nanosecond)},
				4: {"min_concurrency_limit", countInto(&c.MinLimit)},
			})
		}},
		3: {"min_rtt_calc_params", func(v value, at string) error {
			rtt = true
			return fields(v.bytes, at, map[protowire.Number]reader{
				1: {"interval", durationInto(&c.Interval, time.Millisecond)},
				2: {"request_count", countInto(&c.RequestCount)},
				3: {"jitter", percentInto(&c.Jitter)},
				4: {"min_concurrency", countInto(&c.MinConcurrency)},
				5: {"buffer", percentInto(&c.Buffer)},
				6: {"fixed_value", durationInto(&c.FixedRTT, time.Nanosecond)},
			})
		}},
	})
	switch {
	case err != nil:
		return err
	case !limits:
		return fmt.Errorf("%s.concurrency_limit_params: is required", at)
	case !rtt:
		return fmt.Errorf("%s.min_rtt_calc_params: is required", at)
	case c.Update == 0:
		return fmt.Errorf("%s.concurrency_limit_params.concurrency_update_interval: is required", at)
	case c.Interval == 0 && c.FixedRTT == 0:
		return fmt.Errorf("%s.min_rtt_calc_params: interval or fixed_value is required", at)
	}
	return nil
}

// value is a field's: a number of a varint or fixed64, or bytes.
type value struct {
	number uint64
	bytes  []byte
}

// reader reads one field; at is its path.
type reader struct {
	name string
	read func(v value, at string) error
}

// fields hands the fields of a message to their readers; others are refused.
func fields(b []byte, at string, known map[protowire.Number]reader) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%snot a message: %w", prefix(at), protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return fmt.Errorf("%sfield %d: %w", prefix(at), num, protowire.ParseError(n))
		}
		r, ok := known[num]
		if !ok {
			return fmt.Errorf("%sfield %d: not supported", prefix(at), num)
		}
		var v value
		switch typ {
		case protowire.VarintType:
			v.number, _ = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v.number, _ = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, _ = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("%s%s: not of its type", prefix(at), r.name)
		}
		path := r.name
		if at != "" {
			path = at + "." + r.name
		}
		if err := r.read(v, path); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func prefix(at string) string {
	if at == "" {
		return ""
	}
	return at + ": "
}

// wrapped reads a message whose only field is a value.
func wrapped(v value, at string, to func(v value) error) error {
	return fields(v.bytes, at, map[protowire.Number]reader{1: {"value", func(v value, _ string) error { return to(v) }}})
}

// countInto reads a UInt32Value of at least 1.
func countInto(to *uint32) func(v value, at string) error {
	return func(v value, at string) error {
		n := uint64(0)
		if err := wrapped(v, at, func(v value) error { n = v.number; return nil }); err != nil {
			return err
		}
		if n == 0 || n > math.MaxUint32 {
			return fmt.Errorf("%s: must be greater than 0, is %d", at, n)
		}
		*to = uint32(n)
		return nil
	}
}

func percentInto(to *float64) func(v value, at string) error {
	return func(v value, at string) error {
		*to = 0
		return wrapped(v, at, func(v value) error {
			p := math.Float64frombits(v.number)
			if !(p >= 0 && p <= 100) {
				return fmt.Errorf("%s: must be between 0 and 100, is %v", at, p)
			}
			*to = p
			return nil
		})
	}
}

const maxDuration = 24 * time.Hour

// durationInto reads a Duration of at least so much and at most a day.
func durationInto(to *time.Duration, least time.Duration) func(v value, at string) error {
	return func(v value, at string) error {
		var seconds, nanos int64
		err := fields(v.bytes, at, map[protowire.Number]reader{
			1: {"seconds", func(v value, _ string) error { seconds = int64(v.number); return nil }},
			2: {"nanos", func(v value, _ string) error { nanos = int64(v.number); return nil }},
		})
		if err != nil {
			return err
		}
		if seconds < 0 || seconds > int64(maxDuration/time.Second) || nanos < 0 || nanos >= 1e9 {
			return fmt.Errorf("%s: must be between %s and %s", at, least, maxDuration)
		}
		d := time.Duration(seconds)*time.Second + time.Duration(nanos)
		if d < least {
			return fmt.Errorf("%s: must be at least %s, is %s", at, least, d)
		}
		*to = d
		return nil
	}
}
