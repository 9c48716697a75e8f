// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxBodyBytes bounds a report, on the wire and unpacked.
const maxBodyBytes = 8 << 20

// The defaults of Zipkin's query parameters.
const (
	defaultLimit    = 10
	maxLimit        = 10_000
	defaultLookback = 24 * time.Hour
)

// Handler answers Zipkin's HTTP API under prefix, "/zipkin" or "" for a port of
// its own. now is the clock behind parameters that are left out.
func (s *Store) Handler(prefix string, now func() time.Time) http.Handler {
	h := &handler{store: s, now: now}
	mux := http.NewServeMux()
	api := prefix + "/api/v2/"
	mux.HandleFunc("POST "+api+"spans", h.postSpans)
	mux.HandleFunc("GET "+api+"spans", h.spanNames)
	mux.HandleFunc("GET "+api+"services", h.services)
	mux.HandleFunc("GET "+api+"remoteServices", h.remoteServices)
	mux.HandleFunc("GET "+api+"traces", h.traces)
	mux.HandleFunc("GET "+api+"trace/{id}", h.trace)
	mux.HandleFunc("GET "+api+"traceMany", h.traceMany)
	mux.HandleFunc("GET "+api+"dependencies", h.dependencies)
	mux.HandleFunc("GET "+api+"autocompleteKeys", h.autocompleteKeys)
	mux.HandleFunc("GET "+api+"autocompleteValues", h.autocompleteValues)
	mux.HandleFunc("GET "+prefix+"/health", h.health)
	mux.HandleFunc("GET "+prefix+"/config.json", h.uiConfig)
	return mux
}

type handler struct {
	store *Store
	now   func() time.Time
}

func (h *handler) postSpans(w http.ResponseWriter, r *http.Request) {
	if t := r.Header.Get("Content-Type"); t != "" {
		media, _, err := mime.ParseMediaType(t)
		if err != nil || media != "application/json" {
			refuse(w, http.StatusUnsupportedMediaType, fmt.Sprintf("content-type: want application/json, not %.60q", t))
			return
		}
	}
	body, status, err := readBody(w, r)
	if err != nil {
		refuse(w, status, err.Error())
		return
	}
	if len(body) == 0 { // reporters probe the address so
		w.WriteHeader(http.StatusAccepted)
		return
	}
	list, err := Decode(body)
	if err != nil {
		h.store.refuse(1)
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	h.store.Add(list)
	w.WriteHeader(http.StatusAccepted)
}

func readBody(w http.ResponseWriter, r *http.Request) (body []byte, status int, err error) {
	var in io.Reader = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		unpack, err := gzip.NewReader(in)
		if err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("body: gzip: %w", err)
		}
		in = unpack
	default:
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("content-encoding: want gzip or none, not %.40q", encoding)
	}
	body, err = io.ReadAll(io.LimitReader(in, maxBodyBytes+1))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong) || len(body) > maxBodyBytes:
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("body: more than %d bytes", maxBodyBytes)
	case err != nil:
		return nil, http.StatusBadRequest, fmt.Errorf("body: %w", err)
	}
	return body, 0, nil
}

func (h *handler) services(w http.ResponseWriter, _ *http.Request) { respond(w, h.store.Services()) }

func (h *handler) spanNames(w http.ResponseWriter, r *http.Request) {
	if name, ok := required(w, r, "serviceName"); ok {
		respond(w, h.store.SpanNames(strings.ToLower(name)))
	}
}

func (h *handler) remoteServices(w http.ResponseWriter, r *http.Request) {
	if name, ok := required(w, r, "serviceName"); ok {
		respond(w, h.store.RemoteServices(strings.ToLower(name)))
	}
}

func (h *handler) autocompleteKeys(w http.ResponseWriter, _ *http.Request) {
	respond(w, h.store.AutocompleteKeys())
}

func (h *handler) autocompleteValues(w http.ResponseWriter, r *http.Request) {
	if key, ok := required(w, r, "key"); ok {
		respond(w, h.store.AutocompleteValues(key))
	}
}

func (h *handler) traces(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query(), h.now())
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	respondTraces(w, h.store.Traces(q))
}

func (h *handler) trace(w http.ResponseWriter, r *http.Request) {
	id, ok := hexID(r.PathValue("id"), true)
	if !ok || id == "" {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("trace id: want 1 to 32 lower-case hexadecimal digits, not all zero, not %.40q", r.PathValue("id")))
		return
	}
	spans := h.store.Trace(id)
	if spans == nil {
		refuse(w, http.StatusNotFound, id+" not found")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(AppendJSONList(nil, spans)) // the caller has gone if this fails
}

func (h *handler) traceMany(w http.ResponseWriter, r *http.Request) {
	text, ok := required(w, r, "traceIds")
	if !ok {
		return
	}
	if !strings.Contains(text, ",") {
		refuse(w, http.StatusBadRequest, "traceIds: want at least two, separated by commas")
		return
	}
	var list [][]*Span
	seen := make(map[string]bool)
	for _, part := range strings.Split(text, ",") {
		id, ok := hexID(part, true)
		if !ok || id == "" {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("traceIds: want 1 to 32 lower-case hexadecimal digits, not %.40q", part))
			return
		}
		if seen[id] {
			refuse(w, http.StatusBadRequest, "traceIds: redundant "+id)
			return
		}
		seen[id] = true
		if spans := h.store.Trace(id); spans != nil {
			list = append(list, spans)
		}
	}
	respondTraces(w, list)
}

func (h *handler) dependencies(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if _, ok := required(w, r, "endTs"); !ok {
		return
	}
	end, err := millis(q, "endTs", 0)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	lookback, err := millis(q, "lookback", defaultLookback.Milliseconds())
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	respond(w, h.store.Links(time.UnixMilli(end), time.Duration(lookback)*time.Millisecond))
}

func (h *handler) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"status":"UP","zipkin":{"status":"UP","details":{"OutriggerSpanStore":{"status":"UP"}}}}`)
}

// uiConfig is what Zipkin's user interface asks for first.
func (h *handler) uiConfig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"environment":"","queryLimit":10,"defaultLookback":900000,"searchEnabled":true,`+
		`"dependency":{"enabled":true,"lowErrorRate":0.5,"highErrorRate":0.75}}`)
}

// parseQuery reads the parameters of /traces.
func parseQuery(v url.Values, now time.Time) (Query, error) {
	q := Query{
		ServiceName:       strings.ToLower(v.Get("serviceName")),
		RemoteServiceName: strings.ToLower(v.Get("remoteServiceName")),
		SpanName:          strings.ToLower(v.Get("spanName")),
		Annotations:       parseAnnotations(v.Get("annotationQuery")),
	}
	if q.SpanName == "all" { // the search form's word for "any"
		q.SpanName = ""
	}
	var faults []error
	number := func(name string, fallback int64, read func(url.Values, string, int64) (int64, error)) int64 {
		n, err := read(v, name, fallback)
		if err != nil {
			faults = append(faults, err)
		}
		return n
	}
	q.End = time.UnixMilli(number("endTs", now.UnixMilli(), millis))
	q.Lookback = time.Duration(number("lookback", defaultLookback.Milliseconds(), millis)) * time.Millisecond
	q.Limit = int(min(number("limit", defaultLimit, positive), maxLimit))
	q.MinDuration = time.Duration(number("minDuration", 0, micros)) * time.Microsecond
	q.MaxDuration = time.Duration(number("maxDuration", 0, micros)) * time.Microsecond
	switch {
	case q.MaxDuration > 0 && q.MinDuration == 0:
		faults = append(faults, errors.New("maxDuration: only with minDuration"))
	case q.MaxDuration > 0 && q.MaxDuration < q.MinDuration:
		faults = append(faults, errors.New("maxDuration: less than minDuration"))
	}
	return q, errors.Join(faults...)
}

// parseAnnotations reads `key=value and annotation`.
func parseAnnotations(text string) map[string]string {
	out := make(map[string]string)
	for _, part := range strings.Split(text, " and ") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if key = strings.TrimSpace(key); key != "" {
			out[key] = strings.TrimSpace(value)
		}
	}
	return out
}

// maxMillis keeps a parameter within what time.Duration can hold.
const maxMillis = int64(1) << 43

func millis(v url.Values, name string, fallback int64) (int64, error) {
	n, err := positive(v, name, fallback)
	return min(n, maxMillis), err
}

func micros(v url.Values, name string, fallback int64) (int64, error) {
	n, err := positive(v, name, fallback)
	return min(n, maxMillis*1000), err
}

func positive(v url.Values, name string, fallback int64) (int64, error) {
	text := v.Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return fallback, fmt.Errorf("%s: want a whole number above 0, not %.40q", name, text)
	}
	return n, nil
}

func required(w http.ResponseWriter, r *http.Request, name string) (string, bool) {
	value := r.URL.Query().Get(name)
	if value == "" {
		refuse(w, http.StatusBadRequest, name+": required")
		return "", false
	}
	return value, true
}

func respond[T any](w http.ResponseWriter, list []T) {
	if list == nil {
		list = []T{} // a list, never null
	}
	body, err := json.Marshal(list)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func respondTraces(w http.ResponseWriter, traces [][]*Span) {
	body := []byte{'['}
	for i, t := range slices.All(traces) {
		if i > 0 {
			body = append(body, ',')
		}
		body = AppendJSONList(body, t)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, ']'))
}

// refuse answers in plain text, as Zipkin does.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
