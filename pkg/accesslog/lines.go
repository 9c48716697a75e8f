// SPDX-License-Identifier: Apache-2.0

package accesslog

// Lines opens the file at path for lines that are no records of exchanges, such as
// events of health checks. Each call of write appends one line with its newline; like
// those of plans, lines are dropped and counted where the file is slower. The file is
// closed when nobody has write any more.
func (w *Writers) Lines(path string) (write func(line []byte), err error) {
	u, err := w.open(path)
	if err != nil {
		return nil, err
	}
	return func(line []byte) { u.line(line) }, nil
}

// line takes a line that is whole, to be written at once.
func (f *File) line(b []byte) {
	f.mu.Lock()
	if len(f.pending) >= f.limit || f.stop {
		f.mu.Unlock()
		f.dropped.Add(1)
		return
	}
	f.pending = append(f.pending, b...)
	f.mu.Unlock()
	f.lines.Add(1)
	f.signal()
}
