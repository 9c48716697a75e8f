// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"encoding/json"
	"errors"
)

// lakeSink keeps records in the spool for the control plane's lake.
var lakeSink = sinkKind{
	parse: func(v json.RawMessage) (SinkConfig, error) {
		if len(v) > 0 && string(v) != "{}" && string(v) != "null" {
			return SinkConfig{}, errors.New("lake: takes no settings")
		}
		return SinkConfig{Kind: "lake"}, nil
	},
	open: func(w *Writer, _ SinkConfig) (Sink, error) {
		if w.lake == nil {
			return nil, errors.New("lake: this sidecar has no data folder to spool in")
		}
		return w.lake, nil
	},
}

// lakeWriter makes a sink of a spool. A record that the spool's policy drops
// there counts as written here, and as dropped there.
type lakeWriter struct{ spool *Spool }

func (w *lakeWriter) Write(_ *Record, rec []byte) error { return w.spool.Append(rec) }
func (w *lakeWriter) Flush() (uint64, error)            { return 0, w.spool.Flush() }
func (w *lakeWriter) Close() error                      { return w.spool.Close() }
