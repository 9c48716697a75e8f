// SPDX-License-Identifier: Apache-2.0

package lake

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/outrigger-mesh/outrigger/pkg/statefile"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

// Bounds of turning a generation into files.
const (
	openParts     = 8        // files written at a time; more partitions take more passes
	rowGroupBytes = 16 << 20 // of records
	rowsAtOnce    = 64
	maxSkew       = 7 * 24 * time.Hour // of a sender's clock
)

// turn writes the files of a generation and removes its log. Run again after a
// failure or a crash it writes the same files.
func (l *Lake) turn(g *generation) error {
	finished := map[string]bool{}
	var files, rows, damaged uint64
	for {
		p := pass{lake: l, generation: g, finished: finished, open: map[string]*part{}, seen: map[sender]seenState{}}
		err := p.run()
		if err == nil {
			err = p.finish()
		}
		if err != nil {
			p.abandon()
			return fmt.Errorf("lake: %w", err)
		}
		for dir, t := range p.open {
			finished[dir] = true
			files++
			rows += t.rows
		}
		damaged = p.damaged
		if !p.more {
			break
		}
	}
	if err := l.forget(g); err != nil {
		return fmt.Errorf("lake: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Files += files
	l.stats.Rows += rows
	l.stats.Damaged += damaged
	return nil
}

// forget removes a log. The newest one is kept until a newer is there: it says
// what was stored.
func (l *Lake) forget(g *generation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil && len(l.done) > 0 && l.done[len(l.done)-1] == g {
		closed := l.closed
		if err := l.begin(); err != nil {
			return err
		}
		if closed {
			err := l.current.file.Close()
			l.current = nil
			if err != nil {
				return err
			}
		}
	}
	if err := os.Remove(g.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for i, d := range l.done {
		if d == g {
			l.done = append(l.done[:i], l.done[i+1:]...)
			break
		}
	}
	return nil
}

// pass is one reading of a generation.
type pass struct {
	lake       *Lake
	generation *generation
	finished   map[string]bool // partitions that earlier passes wrote
	open       map[string]*part
	seen       map[sender]seenState
	more       bool // there are partitions for another pass
	damaged    uint64

	rec tap.Record
}

// part is one file that is being written.
type part struct {
	temp, final string
	file        *os.File
	writer      *parquet.GenericWriter[Row]
	pending     []Row
	bytes       int
	rows        uint64
}

func (p *pass) run() error {
	f, err := os.Open(p.generation.path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = scan(f, p.entry)
	return err
}

func (p *pass) entry(payload []byte) error {
	switch payload[0] {
	case kindSeen:
		s, st, err := decodeSeen(payload)
		if err == nil {
			p.seen[s] = st
		}
	case kindBatch:
		b, err := decodeBatch(payload)
		if err != nil || b.sequence <= p.seen[b.sender].sequence {
			return nil
		}
		p.seen[b.sender] = seenState{b.sequence, b.at}
		for i, rec := range b.records {
			if err := p.record(&b, i, rec); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pass) record(b *batch, i int, encoded []byte) error {
	if err := p.rec.Decode(encoded); err != nil {
		p.damaged++
		return nil
	}
	dir := partition(&p.rec, b.at)
	if p.finished[dir] {
		return nil
	}
	t := p.open[dir]
	if t == nil {
		if len(p.open) >= openParts {
			p.more = true
			return nil
		}
		var err error
		if t, err = p.create(dir); err != nil {
			return err
		}
	}
	t.pending = append(t.pending, Row{})
	r := &t.pending[len(t.pending)-1]
	r.fill(&p.rec)
	// Bodies point into the entry, which does not outlive this call.
	r.RequestBody, r.ResponseBody = clone(r.RequestBody), clone(r.ResponseBody)
	// Who sent it is known better than what it says.
	r.Node, r.Boot, r.Sequence, r.Position = b.sender.node, b.sender.boot, int64(b.sequence), int32(i)
	t.bytes += len(encoded)
	return t.flush(false)
}

func clone(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

// partition is the folder of a record below raw. Its parts come from sidecars:
// names are made safe, and a time that is far from that of arrival is not taken
// for one.
func partition(r *tap.Record, arrived int64) string {
	at := time.Unix(0, r.Start)
	if d := at.Sub(time.Unix(0, arrived)); d > maxSkew || d < -maxSkew {
		at = time.Unix(0, arrived)
	}
	at = at.UTC()
	return filepath.Join("service="+safeName(r.Service), "date="+at.Format("2006-01-02"), "hour="+at.Format("15"))
}

// safeName encodes what may not stand in a folder's name, as Hive does.
func safeName(s string) string {
	if s == "" {
		return "__HIVE_DEFAULT_PARTITION__"
	}
	var b strings.Builder
	for i := 0; i < len(s) && i < 128; i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func (p *pass) create(dir string) (*part, error) {
	folder := filepath.Join(p.lake.config.Dir, "raw", dir)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("part-%016x.parquet", p.generation.number)
	t := &part{temp: filepath.Join(folder, "."+name+".tmp"), final: filepath.Join(folder, name)}
	var err error
	if t.file, err = os.OpenFile(t.temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
		return nil, err
	}
	t.writer = parquet.NewGenericWriter[Row](t.file,
		parquet.Compression(&p.lake.codec),
		parquet.CreatedBy("outrigger", "1", ""),
		parquet.PageBufferSize(64<<10), parquet.WriteBufferSize(256<<10))
	p.open[dir] = t
	return t, nil
}

// flush hands rows to the Parquet writer, and ends a row group where it has become
// large: a writer holds one in memory.
func (t *part) flush(all bool) error {
	if len(t.pending) > 0 && (all || len(t.pending) >= rowsAtOnce || t.bytes >= rowGroupBytes) {
		n, err := t.writer.Write(t.pending)
		if err != nil {
			return err
		}
		t.rows += uint64(n)
		clear(t.pending)
		t.pending = t.pending[:0]
	}
	if t.bytes >= rowGroupBytes {
		t.bytes = 0
		return t.writer.Flush()
	}
	return nil
}

// finish completes all files: readers see each only as a whole.
func (p *pass) finish() error {
	for _, t := range p.open {
		err := t.flush(true)
		if err == nil {
			err = t.writer.Close()
		}
		if err == nil {
			err = t.file.Sync()
		}
		if err = errors.Join(err, t.file.Close()); err != nil {
			return err
		}
		t.file = nil
		if err := os.Rename(t.temp, t.final); err != nil {
			return err
		}
		if err := statefile.SyncFolder(filepath.Dir(t.final)); err != nil {
			return err
		}
	}
	return p.syncParents()
}

// syncParents makes the names of new folders durable too.
func (p *pass) syncParents() error {
	root := filepath.Join(p.lake.config.Dir, "raw")
	done := map[string]bool{}
	for dir := range p.open {
		for d := filepath.Dir(filepath.Join(root, dir)); len(d) >= len(root) && !done[d]; d = filepath.Dir(d) {
			done[d] = true
			if err := statefile.SyncFolder(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// abandon removes what a failed pass has begun.
func (p *pass) abandon() {
	for _, t := range p.open {
		if t.file != nil {
			t.file.Close()
			os.Remove(t.temp)
		}
	}
}
