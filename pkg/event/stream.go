// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Missed is the type of the server-sent event that tells a reader that events were
// dropped before it had read them.
const Missed = "missed"

// maxFrame bounds a line of a stream that is read.
const maxFrame = 1 << 20

// Frame is one server-sent event (HTML standard, section 9.2).
type Frame struct {
	ID   uint64 // 0: none was given
	Type string // "message" where none was given
	Data string
}

// AppendFrame appends a server-sent event; data must be of one line.
func AppendFrame(b []byte, f Frame) []byte {
	if f.ID != 0 {
		b = append(strconv.AppendUint(append(b, "id: "...), f.ID, 10), '\n')
	}
	b = append(append(append(b, "event: "...), f.Type...), '\n')
	return append(append(append(b, "data: "...), f.Data...), "\n\n"...)
}

// KeepAlive is a comment that shows both sides that the other is there.
const KeepAlive = ": keep-alive\n\n"

// ReadFrames calls each for every server-sent event until the stream ends, which is
// no error, or each returns one.
func ReadFrames(r io.Reader, each func(Frame) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxFrame)
	f := Frame{}
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" {
			if f.Data != "" {
				if f.Type == "" {
					f.Type = "message"
				}
				if err := each(f); err != nil {
					return err
				}
			}
			f = Frame{}
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			id, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return fmt.Errorf("event stream: id: %q is no number", clip(value, 64))
			}
			f.ID = id
		case "event":
			f.Type = value
		case "data":
			if f.Data != "" {
				f.Data += "\n"
			}
			f.Data += value
		}
	}
	return lines.Err()
}
