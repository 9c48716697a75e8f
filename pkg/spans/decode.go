// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// MaxSpanBytes bounds one encoded span.
const MaxSpanBytes = 256 << 10

// maxDecodeErrors bounds the answer to a list that is wrong throughout.
const maxDecodeErrors = 10

// Decode reads a list of spans in Zipkin's version 2 JSON. Unknown fields are
// tolerated. Either every span is good, or the error names each bad field, as in
// `spans[3].traceId: …`, up to ten of them.
func Decode(data []byte) ([]*Span, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("want a JSON list of spans: %w", err)
	}
	out := make([]*Span, 0, len(raw))
	var faults []error
	for i, r := range raw {
		s, err := DecodeSpan(r)
		if err != nil {
			faults = append(faults, fmt.Errorf("spans[%d]%w", i, err))
			if len(faults) == maxDecodeErrors {
				break
			}
			continue
		}
		out = append(out, s)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return out, nil
}

// DecodeSpan reads one span in Zipkin's version 2 JSON. The error begins with
// the path of the field, as in `.traceId: …`.
func DecodeSpan(data []byte) (*Span, error) {
	if len(data) > MaxSpanBytes {
		return nil, fmt.Errorf(": %d bytes, the limit is %d", len(data), MaxSpanBytes)
	}
	if s, ok := decodePlain(data); ok {
		return s, nil
	}
	return decodeAny(data)
}

// decodeAny is DecodeSpan for spans of any form.
func decodeAny(data []byte) (*Span, error) {
	if t := bytes.TrimSpace(data); len(t) == 0 || t[0] != '{' {
		return nil, errors.New(": want an object")
	}
	var w wireSpan
	if err := json.Unmarshal(data, &w); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return nil, fmt.Errorf(".%s: want %s, not %s", wrong.Field, wrong.Type, wrong.Value)
		}
		return nil, fmt.Errorf(": %w", err)
	}
	return w.span()
}

// wireSpan is a span as reporters write it.
type wireSpan struct {
	TraceID        string                     `json:"traceId"`
	ParentID       string                     `json:"parentId"`
	ID             string                     `json:"id"`
	Kind           string                     `json:"kind"`
	Name           string                     `json:"name"`
	Timestamp      number                     `json:"timestamp"`
	Duration       number                     `json:"duration"`
	LocalEndpoint  wireEndpoint               `json:"localEndpoint"`
	RemoteEndpoint wireEndpoint               `json:"remoteEndpoint"`
	Annotations    []wireAnnotate             `json:"annotations"`
	Tags           map[string]json.RawMessage `json:"tags"`
	Debug          bool                       `json:"debug"`
	Shared         bool                       `json:"shared"`
}

type wireEndpoint struct {
	ServiceName string `json:"serviceName"`
	IPv4        string `json:"ipv4"`
	IPv6        string `json:"ipv6"`
	Port        number `json:"port"`
}

type wireAnnotate struct {
	Timestamp number `json:"timestamp"`
	Value     string `json:"value"`
}

// number is a whole number as reporters write it: 5, 5.0 and "5" are one.
type number int64

// UnmarshalJSON implements json.Unmarshaler. The decoder adds the field's name to
// an error of this type.
func (n *number) UnmarshalJSON(data []byte) error {
	text := string(data)
	if text == "null" {
		return nil
	}
	if len(text) > 1 && text[0] == '"' {
		text = text[1 : len(text)-1]
	}
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		*n = number(v)
		return nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return &json.UnmarshalTypeError{Value: fmt.Sprintf("%.40s", data), Type: reflect.TypeFor[int64]()}
	}
	*n = number(f)
	return nil
}

func (w *wireSpan) span() (*Span, error) {
	s := &Span{
		Kind: Kind(w.Kind), Name: strings.ToLower(w.Name), Debug: w.Debug, Shared: w.Shared,
		// Reporters write 0 or less for "not known".
		Timestamp: max(int64(w.Timestamp), 0), Duration: max(int64(w.Duration), 0),
	}
	if err := w.identify(s); err != nil {
		return nil, err
	}
	switch s.Kind {
	case "", Client, Server, Producer, Consumer:
	default:
		return nil, fmt.Errorf(".kind: want CLIENT, SERVER, PRODUCER or CONSUMER, not %.40q", w.Kind)
	}
	var err error
	if s.Local, err = w.LocalEndpoint.endpoint(".localEndpoint"); err != nil {
		return nil, err
	}
	if s.Remote, err = w.RemoteEndpoint.endpoint(".remoteEndpoint"); err != nil {
		return nil, err
	}
	for i, a := range w.Annotations {
		if a.Timestamp <= 0 || a.Value == "" {
			return nil, fmt.Errorf(".annotations[%d]: want a timestamp and a value", i)
		}
		s.Annotations = append(s.Annotations, Annotation{int64(a.Timestamp), a.Value})
	}
	slices.SortFunc(s.Annotations, func(a, b Annotation) int {
		return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.Value, b.Value))
	})
	s.Annotations = slices.Compact(s.Annotations)
	if s.Tags, err = tags(w.Tags); err != nil {
		return nil, err
	}
	return s, nil
}

// identify sets the three ids. A parent of zeros or equal to the span itself is
// no parent.
func (w *wireSpan) identify(s *Span) error {
	var ok bool
	if s.TraceID, ok = hexID(w.TraceID, true); !ok || s.TraceID == "" {
		return fmt.Errorf(".traceId: want 1 to 32 lower-case hexadecimal digits, not all zero, not %.40q", w.TraceID)
	}
	if s.ID, ok = hexID(w.ID, false); !ok || s.ID == "" {
		return fmt.Errorf(".id: want 1 to 16 lower-case hexadecimal digits, not all zero, not %.40q", w.ID)
	}
	if s.ParentID, ok = hexID(w.ParentID, false); !ok {
		return fmt.Errorf(".parentId: want 1 to 16 lower-case hexadecimal digits, not %.40q", w.ParentID)
	}
	if s.ParentID == s.ID {
		s.ParentID = ""
	}
	return nil
}

func (w *wireEndpoint) endpoint(path string) (Endpoint, error) {
	if w.Port < 0 || w.Port > 65535 {
		return Endpoint{}, fmt.Errorf("%s.port: want 0 to 65535, not %d", path, w.Port)
	}
	e := Endpoint{ServiceName: strings.ToLower(w.ServiceName), Port: uint16(w.Port)}
	// An address that is not one is left out, as Zipkin does: reporters put host
	// names there.
	for _, text := range []string{w.IPv4, w.IPv6} {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		if addr = addr.Unmap().WithZone(""); addr.Is4() {
			e.IPv4 = addr
		} else {
			e.IPv6 = addr
		}
	}
	return e, nil
}

func tags(in map[string]json.RawMessage) ([]Tag, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]Tag, 0, len(in))
	for key, raw := range in {
		text := string(raw)
		switch raw[0] {
		case '"':
			if err := json.Unmarshal(raw, &text); err != nil {
				return nil, fmt.Errorf(".tags.%.40q: %w", key, err)
			}
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9': // a number is kept as it is written
		default:
			return nil, fmt.Errorf(".tags.%.40q: want a string", key)
		}
		out = append(out, Tag{key, text})
	}
	slices.SortFunc(out, func(a, b Tag) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}
