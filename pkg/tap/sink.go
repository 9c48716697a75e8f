// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Sink takes redacted records. It is used by the Writer's goroutine only.
type Sink interface {
	// Write takes a record; rec is its encoding. Neither may be kept. An error
	// means that the record is lost; it is counted.
	Write(r *Record, rec []byte) error
	// Flush is called after each batch and regularly without one. Lost is the number
	// of records that Write took and that are lost now, where the sink does not
	// count them itself.
	Flush() (lost uint64, err error)
	Close() error
}

// SinkConfig says where a rule's records go. It is comparable: rules with equal
// ones share a sink.
type SinkConfig struct {
	Kind string
	Path string // file
}

// sinkKind makes the sinks of one kind.
type sinkKind struct {
	// parse reads the value of the kind's key; nil where only the name was given.
	parse func(v json.RawMessage) (SinkConfig, error)
	open  func(w *Writer, c SinkConfig) (Sink, error)
}

// parseSink reads "lake", {"file": {"path": …}} or nothing, which is the lake.
func parseSink(v json.RawMessage) (SinkConfig, error) {
	v = bytes.TrimSpace(v)
	if len(v) == 0 || string(v) == "null" {
		return SinkConfig{Kind: "lake"}, nil
	}
	kind, value := "", json.RawMessage(nil)
	if v[0] == '"' {
		if err := json.Unmarshal(v, &kind); err != nil {
			return SinkConfig{}, err
		}
	} else {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(v, &m); err != nil {
			return SinkConfig{}, err
		}
		if len(m) != 1 {
			return SinkConfig{}, errors.New("want exactly one kind of sink")
		}
		for kind, value = range m {
		}
	}
	k, ok := sinks[kind]
	if !ok {
		return SinkConfig{}, fmt.Errorf("%q is not supported (known: %s)", kind, strings.Join(knownSinks(), ", "))
	}
	return k.parse(value)
}

func knownSinks() []string {
	var names []string
	for n := range sinks {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// strict decodes JSON and refuses unknown fields.
func strict(v json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(v))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
