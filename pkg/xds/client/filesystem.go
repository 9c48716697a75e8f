// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/fsnotify/fsnotify"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

const (
	// fileDebounce gathers the events of one change.
	fileDebounce = 150 * time.Millisecond
	// filePoll is the fallback where no events come (network file systems) or get
	// lost.
	filePoll = 15 * time.Second
)

// runFile reads resources from a file and reads it again when it changes.
func (c *Client) runFile(ctx context.Context, s *source) {
	dir := s.src.WatchedDir
	if dir == "" {
		dir = filepath.Dir(s.src.Path)
	}
	events, stop := c.watch(dir)
	defer stop()
	every := s.src.PollInterval
	if every <= 0 {
		every = filePoll
	}
	if !c.tell(ctx, message{from: s, ev: Opened{}}) {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	file := fileReader{path: s.src.Path, kind: s.kind, max: c.cfg.MaxResponseBytes}
	failed := ""
	for {
		r, fresh, err := file.read()
		switch {
		case err != nil && (fresh || err.Error() != failed):
			failed = err.Error()
			if !c.tell(ctx, message{from: s, ev: Closed{}, err: err}) {
				return
			}
		case err == nil && failed != "":
			failed = ""
			if !c.tell(ctx, message{from: s, ev: Opened{}}) {
				return
			}
		}
		if r != nil && !c.tell(ctx, message{from: s, ev: Response{DiscoveryResponse: r}}) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-events:
			if !sleep(ctx, fileDebounce) {
				return
			}
			select { // what came meanwhile belongs to the same change
			case <-events:
			default:
			}
		}
	}
}

// fileReader reads a file of resources when its bytes have changed.
type fileReader struct {
	path string
	kind decode.Kind
	max  int // bytes
	last [sha256.Size]byte
	bad  error // what is wrong with the bytes read last
}

// read returns nil if the file is as it was; its error stays as well. fresh says that
// there are other bytes than the last time.
func (f *fileReader) read() (r *discoveryv3.DiscoveryResponse, fresh bool, err error) {
	data, err := readBounded(f.path, f.max)
	if err != nil {
		f.last = [sha256.Size]byte{}
		return nil, false, err
	}
	sum := sha256.Sum256(data)
	if sum == f.last {
		return nil, false, f.bad
	}
	f.last = sum
	r = new(discoveryv3.DiscoveryResponse)
	f.bad = f.parse(data, r)
	if f.bad != nil {
		return nil, true, f.bad
	}
	if r.GetVersionInfo() == "" {
		r.VersionInfo = hex.EncodeToString(sum[:8])
	}
	if r.GetTypeUrl() == "" {
		r.TypeUrl = decode.TypeOf(f.kind).URL
	}
	return r, true, nil
}

func (f *fileReader) parse(data []byte, r *discoveryv3.DiscoveryResponse) error {
	if !strings.HasSuffix(f.path, ".pb") {
		return decode.File(data, f.path, r)
	}
	if err := proto.Unmarshal(data, r); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	return nil
}

func readBounded(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > int64(most) {
		return nil, fmt.Errorf("%s: %w", path, &sizeError{max: most})
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(data) > most {
		return nil, fmt.Errorf("%s: %w", path, &sizeError{max: most})
	}
	return data, nil
}

// watcher is the one file watcher of a client: the system has few. It watches
// folders, because files are replaced by renames and symlinks are swapped.
type watcher struct {
	fs   *fsnotify.Watcher
	done chan struct{}

	mu   sync.Mutex
	dirs map[string]map[chan struct{}]bool
}

// watch returns a channel that gets a token when something changes in a folder.
// Without events (the folder does not exist, the system's limit is reached) the
// poll of the caller remains.
func (c *Client) watch(dir string) (<-chan struct{}, func()) {
	c.mu.Lock()
	if c.files == nil {
		c.files = newWatcher()
	}
	w := c.files
	c.mu.Unlock()
	ch := make(chan struct{}, 1)
	w.add(dir, ch)
	return ch, func() { w.remove(dir, ch) }
}

func newWatcher() *watcher {
	w := &watcher{done: make(chan struct{}), dirs: map[string]map[chan struct{}]bool{}}
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		close(w.done)
		return w
	}
	w.fs = fs
	// Ends when close closes the watcher, which waits for it.
	go w.run()
	return w
}

func (w *watcher) run() {
	defer close(w.done)
	for {
		select {
		case e, ok := <-w.fs.Events:
			if !ok {
				return
			}
			w.notify(filepath.Dir(e.Name))
		case err, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				w.notify("")
			}
		}
	}
}

// notify wakes those who watch a folder; "" is all of them.
func (w *watcher) notify(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for d, list := range w.dirs {
		if dir != "" && filepath.Clean(d) != filepath.Clean(dir) {
			continue
		}
		for ch := range list {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}

func (w *watcher) add(dir string, ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirs[dir] == nil {
		w.dirs[dir] = map[chan struct{}]bool{}
		if w.fs != nil {
			_ = w.fs.Add(dir) // the poll covers what cannot be watched
		}
	}
	w.dirs[dir][ch] = true
}

func (w *watcher) remove(dir string, ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.dirs[dir], ch)
	if len(w.dirs[dir]) == 0 {
		delete(w.dirs, dir)
		if w.fs != nil {
			_ = w.fs.Remove(dir)
		}
	}
}

func (w *watcher) close() {
	if w.fs != nil {
		w.fs.Close()
	}
	<-w.done
}
