// SPDX-License-Identifier: Apache-2.0

package lake

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
)

// File is one file of a lake.
type File struct {
	Path     string    `json:"path"` // from the lake's folder
	Service  string    `json:"service"`
	Date     string    `json:"date"`
	Hour     string    `json:"hour"`
	Rows     int64     `json:"rows"`
	Bytes    int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
}

// List finds the complete files of the lake in a folder, in the order of their
// paths. A folder without a lake is an error; an empty lake has no files.
func List(dir string) ([]File, error) {
	root := filepath.Join(dir, "raw")
	if _, err := os.Stat(root); err != nil {
		if _, err := os.Stat(filepath.Join(dir, "wal")); err == nil {
			return nil, nil
		}
		return nil, fmt.Errorf("lake: %s holds no lake: %w", dir, err)
	}
	var files []File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || !isPart(d.Name()) {
			return nil
		}
		f, err := describe(dir, path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lake: %w", err)
	}
	return files, nil
}

func isPart(name string) bool {
	return strings.HasSuffix(name, ".parquet") && name[0] != '.' && name[0] != '_'
}

func describe(dir, path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	p, err := parquet.OpenFile(f, st.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return File{}, err
	}
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		rel = path
	}
	out := File{Path: rel, Rows: p.NumRows(), Bytes: st.Size(), Modified: st.ModTime().UTC()}
	for _, s := range strings.Split(filepath.ToSlash(rel), "/") {
		switch k, v, _ := strings.Cut(s, "="); k {
		case "service":
			out.Service = v
		case "date":
			out.Date = v
		case "hour":
			out.Hour = v
		}
	}
	return out, nil
}

// Formats that Cat writes.
const (
	FormatJSON = "json" // one object a line, all columns
	FormatText = "text" // a table of the main columns
)

// Cat writes the rows of a file, or of all files below a folder, in a format.
func Cat(w io.Writer, path, format string) error {
	var write func(rows []Row) error
	flush := func() error { return nil }
	switch format {
	case "", FormatJSON:
		write = func(rows []Row) error { return catJSON(w, rows) }
	case FormatText:
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "TIME\tSERVICE\tMETHOD\tPATH\tSTATUS\tDURATION\tTRACE")
		write = func(rows []Row) error { return catText(t, rows) }
		flush = t.Flush
	default:
		return fmt.Errorf("lake: unknown format %q (known: %s, %s)", format, FormatJSON, FormatText)
	}
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("lake: %w", err)
	}
	if !st.IsDir() {
		if err := catFile(path, write); err != nil {
			return err
		}
		return flush()
	}
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isPart(d.Name()) {
			return err
		}
		return catFile(p, write)
	})
	if err != nil {
		return err
	}
	return flush()
}

func catFile(path string, write func([]Row) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("lake: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("lake: %w", err)
	}
	p, err := parquet.OpenFile(f, st.Size())
	if err != nil {
		return fmt.Errorf("lake: %s: %w", path, err)
	}
	r := parquet.NewGenericReader[Row](p)
	defer r.Close()
	rows := make([]Row, rowsAtOnce)
	for {
		n, err := r.Read(rows)
		if n > 0 {
			if err := write(rows[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lake: %s: %w", path, err)
		}
		clear(rows)
	}
}

func catJSON(w io.Writer, rows []Row) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for i := range rows {
		if err := e.Encode(asJSON(&rows[i])); err != nil {
			return err
		}
	}
	return nil
}

// asJSON names the columns as the files do; bodies are text where they are UTF-8
// and base64 otherwise.
func asJSON(r *Row) map[string]any {
	m := map[string]any{
		"time": time.UnixMicro(r.Time).UTC().Format("2006-01-02T15:04:05.000000Z"),
		"node": r.Node, "boot": r.Boot, "sequence": r.Sequence, "position": r.Position, "service": r.Service,
		"direction": r.Direction, "tap": r.Tap, "id": r.ID, "method": r.Method, "scheme": r.Scheme,
		"authority": r.Authority, "path": r.Path, "protocol": r.Protocol, "status": r.Status, "flags": r.Flags,
		"details": r.Details, "attempts": r.Attempts, "duration_us": r.DurationMicros,
		"request_end_us": r.RequestEndMicros, "upstream_response_us": r.UpstreamResponseMicros,
		"response_start_us": r.ResponseStartMicros, "route": r.Route, "virtual_host": r.VirtualHost,
		"cluster": r.Cluster, "upstream": r.Upstream, "remote": r.Remote, "local": r.Local, "trace_id": r.TraceID,
		"span_id": r.SpanID, "request_id": r.RequestID, "request_headers": r.RequestHeaders,
		"response_headers": r.ResponseHeaders, "request_bytes": r.RequestBytes, "response_bytes": r.ResponseBytes,
		"request_truncated": r.RequestTruncated, "response_truncated": r.ResponseTruncated, "redacted": r.Redacted,
		"connection_id": r.ConnectionID, "server_name": r.ServerName, "alpn": r.ALPN, "peer": r.Peer,
		"transport_failure": r.TransportFailure,
	}
	body(m, "request_body", r.RequestBody)
	body(m, "response_body", r.ResponseBody)
	return m
}

func body(m map[string]any, name string, b []byte) {
	switch {
	case len(b) == 0:
	case utf8.Valid(b):
		m[name] = string(b)
	default:
		m[name+"_base64"] = b
	}
}

func catText(w io.Writer, rows []Row) error {
	for i := range rows {
		r := &rows[i]
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n",
			time.UnixMicro(r.Time).UTC().Format("2006-01-02T15:04:05.000Z"), printable(r.Service),
			printable(cmp.Or(r.Method, r.Protocol)), printable(cmp.Or(r.Path, r.ServerName, r.Upstream)), r.Status, time.Duration(r.DurationMicros)*time.Microsecond, printable(r.TraceID))
		if err != nil {
			return err
		}
	}
	return nil
}

// printable keeps what was tapped from driving the terminal it is shown on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}
