// SPDX-License-Identifier: Apache-2.0

package tap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// fileSink appends records to a file as lines of JSON, mode 0600.
var fileSink = sinkKind{
	parse: func(v json.RawMessage) (SinkConfig, error) {
		var in struct {
			Path string `json:"path"`
		}
		if len(v) == 0 {
			return SinkConfig{}, errors.New("file.path: required")
		}
		if err := strict(v, &in); err != nil {
			return SinkConfig{}, fmt.Errorf("file: %w", err)
		}
		if in.Path == "" {
			return SinkConfig{}, errors.New("file.path: required")
		}
		return SinkConfig{Kind: "file", Path: filepath.Clean(in.Path)}, nil
	},
	open: func(_ *Writer, c SinkConfig) (Sink, error) {
		f, err := os.OpenFile(c.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		return &fileWriter{f: f}, nil
	},
}

// fileBatch is the number of bytes from which lines are written at once.
const fileBatch = 256 << 10

type fileWriter struct {
	f     *os.File
	buf   []byte
	lines uint64 // in buf
	lost  uint64 // not yet reported
	torn  bool   // the file ends inside a line
}

func (w *fileWriter) Write(r *Record, _ []byte) error {
	w.buf = r.AppendJSON(w.buf)
	w.lines++
	if len(w.buf) >= fileBatch {
		return w.write()
	}
	return nil
}

// write empties the buffer. A record whose own write fails is reported by Write's
// error, the others by Flush.
func (w *fileWriter) write() error {
	if w.torn {
		if _, err := w.f.Write([]byte{'\n'}); err != nil {
			w.lost += w.lines - 1
			w.buf, w.lines = w.buf[:0], 0
			return err
		}
		w.torn = false
	}
	n, err := w.f.Write(w.buf)
	if err != nil {
		w.torn = n > 0
		whole := uint64(bytes.Count(w.buf[:n], []byte{'\n'}))
		w.lost += w.lines - whole - 1
	}
	w.buf, w.lines = w.buf[:0], 0
	return err
}

func (w *fileWriter) Flush() (lost uint64, err error) {
	if w.lines > 0 {
		if err = w.write(); err != nil {
			w.lost++ // there is no Write whose error would tell
		}
	}
	lost, w.lost = w.lost, 0
	return lost, err
}

func (w *fileWriter) Close() error { return w.f.Close() }
