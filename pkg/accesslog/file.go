// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// Bounds of the writers.
const (
	DefaultBufferBytes = 4 << 20 // of lines that wait for one file
	maxFiles           = 256     // distinct paths
	handoverBytes      = 64 << 10
	keepBytes          = 1 << 20 // of a buffer that was large once
	closeWait          = 2 * time.Second
)

// Writers are the log files of a process, by path. One stays open as long as a plan
// writes to it.
type Writers struct {
	limit          int
	stdout, stderr io.Writer

	mu      sync.Mutex // guards the rest
	files   map[string]*File
	leaving []*File // without users; they write what waits
	closed  bool
}

// fileUser is what a plan has of a file. Plans, exchanges that began under one and
// records in rings all refer to it, so that the garbage collector alone knows when
// the last has gone: the file is closed then.
type fileUser struct{ *File }

// NewWriters makes writers that hold at most bufferBytes of lines for each file
// that cannot be written at once; 0 means DefaultBufferBytes.
func NewWriters(bufferBytes int) *Writers {
	if bufferBytes <= 0 {
		bufferBytes = DefaultBufferBytes
	}
	return &Writers{limit: bufferBytes, stdout: os.Stdout, stderr: os.Stderr, files: map[string]*File{}}
}

// File is one destination of lines. A goroutine writes it: open starts it, Close
// of the Writers stops it and waits for it.
type File struct {
	path  string
	limit int
	users int // of the Writers' mutex
	wake  chan struct{}
	done  chan struct{}

	mu      sync.Mutex // guards the group
	pending []byte
	spare   []byte
	stop    bool

	reopen                          atomic.Bool
	lines, dropped, written, failed atomic.Uint64
	lastError                       atomic.Pointer[string]

	// Owned by the goroutine.
	out   io.Writer
	owned *os.File // to close; nil for the process's own streams
}

// Stats are the counts of one file.
type Stats struct {
	Path    string
	Lines   uint64 // accepted
	Dropped uint64 // lines that found the buffer full
	Written uint64 // bytes
	Failed  uint64 // writes that the system refused; their lines are lost
	Error   string // the last failure, "" for none yet
}

// open returns the file of a path, opening it at its first use.
func (w *Writers) open(path string) (*fileUser, error) {
	if path == "" {
		return nil, errors.New("required")
	}
	if path != "/dev/stdout" && path != "/dev/stderr" {
		path = filepath.Clean(path)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files[path] == nil && len(w.files) >= maxFiles {
		w.mu.Unlock()
		FindUnused()
		w.mu.Lock()
	}
	f := w.files[path]
	if f == nil {
		var err error
		if f, err = w.start(path); err != nil {
			return nil, err
		}
	}
	f.users++
	u := &fileUser{f}
	runtime.AddCleanup(u, w.leave, f)
	return u, nil
}

// leave takes a user from a file. With the last one it is closed, behind what waits.
func (w *Writers) leave(f *File) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.users--; f.users > 0 || w.closed {
		return
	}
	delete(w.files, f.path)
	w.leaving = append(slices.DeleteFunc(w.leaving, (*File).ended), f)
	f.end()
}

// end makes the goroutine write what waits and close the file.
func (f *File) end() {
	f.mu.Lock()
	f.stop = true
	f.mu.Unlock()
	f.signal()
}

func (f *File) ended() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// start opens the file of a path. It holds mu.
func (w *Writers) start(path string) (*File, error) {
	if w.closed {
		return nil, errors.New("the access logs are closed")
	}
	if len(w.files) >= maxFiles {
		return nil, fmt.Errorf("%q: more than %d access log files", path, maxFiles)
	}
	f := &File{path: path, limit: w.limit, wake: make(chan struct{}, 1), done: make(chan struct{})}
	switch path {
	case "/dev/stdout":
		f.out = w.stdout
	case "/dev/stderr":
		f.out = w.stderr
	default:
		if err := f.openFile(); err != nil {
			return nil, err
		}
	}
	w.files[path] = f
	go f.run()
	return f, nil
}

// openFile does not wait for the reader of a named pipe: without one it fails.
func (f *File) openFile() error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	f.out, f.owned = file, file
	return nil
}

// Flush hands all waiting lines to the files' goroutines. The reader of the
// record rings calls it after each batch; it does not wait for a disk.
func (w *Writers) Flush() {
	w.mu.Lock()
	for _, f := range w.files {
		f.mu.Lock()
		waiting := len(f.pending) > 0
		f.mu.Unlock()
		if waiting {
			f.signal()
		}
	}
	w.mu.Unlock()
}

// Reopen makes every file be opened anew by its path before its next write, for
// log rotation.
func (w *Writers) Reopen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.files {
		f.reopen.Store(true)
		f.signal()
	}
}

// Stats are the counts of all files.
func (w *Writers) Stats() []Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []Stats
	for _, f := range w.files {
		s := Stats{Path: f.path, Lines: f.lines.Load(), Dropped: f.dropped.Load(), Written: f.written.Load(), Failed: f.failed.Load()}
		if e := f.lastError.Load(); e != nil {
			s.Error = *e
		}
		all = append(all, s)
	}
	return all
}

// Close writes what waits and closes the files. A file that cannot be written,
// such as a pipe that nobody reads, is given up after two seconds, with an error.
func (w *Writers) Close() error {
	w.mu.Lock()
	w.closed = true
	files := slices.AppendSeq(w.leaving, maps.Values(w.files))
	w.files = map[string]*File{}
	w.mu.Unlock()
	for _, f := range files {
		f.end()
	}
	var errs []error
	timeout := time.NewTimer(closeWait)
	defer timeout.Stop()
	for _, f := range files {
		select {
		case <-f.done:
		case <-timeout.C:
			timeout.Reset(0)
			errs = append(errs, fmt.Errorf("%s: lines are left that could not be written", f.path))
		}
	}
	return errors.Join(errs...)
}

func (f *File) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// log formats one line into the buffer, or drops it where the buffer is full.
func (f *File) log(format *formatter, p *Plan, r *record.Record) {
	f.mu.Lock()
	if len(f.pending) >= f.limit || f.stop {
		f.mu.Unlock()
		f.dropped.Add(1)
		return
	}
	f.pending = format.append(f.pending, p, r)
	full := len(f.pending) >= handoverBytes
	f.mu.Unlock()
	f.lines.Add(1)
	if full {
		f.signal()
	}
}

// run writes what waits, one buffer while the other fills.
func (f *File) run() {
	defer close(f.done)
	for range f.wake {
		if f.reopen.CompareAndSwap(true, false) {
			f.reopenFile()
		}
		f.mu.Lock()
		batch, stop := f.pending, f.stop
		f.pending, f.spare = f.spare[:0], nil
		f.mu.Unlock()
		if len(batch) > 0 {
			f.write(batch)
		}
		if cap(batch) > keepBytes {
			batch = nil
		}
		f.mu.Lock()
		f.spare = batch[:0]
		f.mu.Unlock()
		if stop {
			if f.owned != nil {
				f.owned.Close()
			}
			return
		}
	}
}

func (f *File) write(b []byte) {
	n, err := f.out.Write(b)
	f.written.Add(uint64(n))
	if err != nil {
		f.failed.Add(1)
		f.note(err)
	}
}

func (f *File) note(err error) {
	s := err.Error()
	f.lastError.Store(&s)
}

// reopenFile goes on with the old file where the path cannot be opened.
func (f *File) reopenFile() {
	if f.owned == nil {
		return
	}
	old := f.owned
	if err := f.openFile(); err != nil {
		f.note(err)
		return
	}
	old.Close()
}
