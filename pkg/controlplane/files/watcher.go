// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Defaults of a Watcher.
const (
	DefaultSettle = 150 * time.Millisecond
	DefaultPoll   = 15 * time.Second
)

// Watcher watches one folder. Its fields are set before Run.
type Watcher struct {
	Dir string
	// Apply gets every file of the folder when any content changed. When it fails
	// it is called again at the next poll.
	Apply func(ctx context.Context, files []File) error
	// Fault hears when the folder itself cannot be read; what was applied stays.
	Fault  func(error)
	Settle time.Duration // quiet time after an event before reading; 0 is the default
	Poll   time.Duration // 0 is the default
	Logger *slog.Logger

	// Owned by the goroutine in Load or Run.
	last    [sha256.Size]byte
	applied bool
}

// Load reads and applies the folder once, for a caller that wants the first
// error before it goes on. Run then applies only what changed since.
func (w *Watcher) Load(ctx context.Context) error { return w.read(ctx) }

// Run watches until the context ends. It runs in the caller's goroutine.
func (w *Watcher) Run(ctx context.Context) {
	if w.Logger == nil {
		w.Logger = slog.New(slog.DiscardHandler)
	}
	settle, poll := w.Settle, w.Poll
	if settle <= 0 {
		settle = DefaultSettle
	}
	if poll <= 0 {
		poll = DefaultPoll
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.Logger.Warn("no file events, the folder is polled", "folder", w.Dir, "every", poll, "error", err)
		notify = &fsnotify.Watcher{}
	} else {
		defer func() { _ = notify.Close() }() // ends its goroutine; nothing was written
		w.watchAll(notify)
	}
	w.loop(ctx, notify, settle, poll)
}

func (w *Watcher) loop(ctx context.Context, notify *fsnotify.Watcher, settle, poll time.Duration) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	quiet := time.NewTimer(0) // read once at the start: what changed since Load is not lost
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-notify.Events:
			if ok && e.Op != fsnotify.Chmod && w.concerns(e.Name) {
				quiet.Reset(settle)
			}
		case err, ok := <-notify.Errors:
			if ok {
				w.Logger.Warn("file events were lost, the folder is read again", "folder", w.Dir, "error", err)
				quiet.Reset(settle)
			}
		case <-quiet.C:
			w.again(ctx, notify)
		case <-ticker.C:
			w.again(ctx, notify)
		}
	}
}

// again reads the folder and watches what is new in it.
func (w *Watcher) again(ctx context.Context, notify *fsnotify.Watcher) {
	w.watchAll(notify)
	if err := w.read(ctx); err != nil && ctx.Err() == nil {
		w.Logger.Error("configuration folder", "error", err)
		if w.Fault != nil {
			w.Fault(err)
		}
	}
}

func (w *Watcher) read(ctx context.Context) error {
	files, digest, err := Read(w.Dir)
	if err != nil {
		return err
	}
	if w.applied && digest == w.last {
		return nil
	}
	if err := w.Apply(ctx, files); err != nil {
		w.applied = false
		return fmt.Errorf("apply configuration folder: %w", err)
	}
	w.last, w.applied = digest, true
	return nil
}

// concerns drops what happens beside the folder in the parents that are watched.
func (w *Watcher) concerns(name string) bool {
	dirs := []string{filepath.Clean(w.Dir)}
	if root, err := filepath.EvalSymlinks(w.Dir); err == nil {
		dirs = append(dirs, root)
	}
	name = filepath.Clean(name)
	for _, d := range dirs {
		if name == d || d == "." || strings.HasPrefix(name, d+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// watchAll watches the folder, its parent (the folder may be replaced or be a
// link), what it points to, and the folders in it. Adding one twice is harmless;
// one that cannot be added is covered by the poll.
func (w *Watcher) watchAll(notify *fsnotify.Watcher) {
	if notify.Events == nil {
		return
	}
	dirs := []string{filepath.Dir(filepath.Clean(w.Dir)), w.Dir}
	if root, err := filepath.EvalSymlinks(w.Dir); err == nil {
		dirs = append(dirs, root, filepath.Dir(root))
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || path == root {
				return nil
			}
			if strings.HasPrefix(d.Name(), ".") || len(dirs) > maxFiles {
				return filepath.SkipDir
			}
			dirs = append(dirs, path)
			return nil
		})
		if err != nil {
			w.Logger.Debug("walk configuration folder", "error", err)
		}
	}
	for _, d := range dirs {
		if err := notify.Add(d); err != nil {
			w.Logger.Debug("watch folder", "folder", d, "error", err)
		}
	}
}
