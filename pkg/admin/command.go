// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// command is one path.
type command struct {
	path   string
	help   string
	params []param
	post   bool // it changes something: POST only
	heavy  bool // it costs memory or time: few at once
	stream bool // it has no end: no time limit
	run    func(*Server, *request)
}

type param struct{ name, help string }

// request is a request with its parsed query and its answer.
type request struct {
	http.ResponseWriter
	*http.Request
	query url.Values
}

const (
	textType = "text/plain; charset=UTF-8"
	jsonType = "application/json"
	htmlType = "text/html; charset=UTF-8"
)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, max-age=0")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	rq := &request{ResponseWriter: w, Request: r}
	if status, reason := s.guard.refuse(r); status != 0 {
		if status == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", `Bearer realm="admin"`)
		}
		rq.fail(status, reason)
		return
	}
	cmd := s.commands[r.URL.Path]
	if cmd == nil {
		rq.fail(http.StatusNotFound, "invalid path. admin commands are:\n"+s.helpText())
		return
	}
	if allow := cmd.allow(); !slices.Contains(allow, r.Method) {
		h.Set("Allow", strings.Join(allow, ", "))
		rq.fail(http.StatusMethodNotAllowed, fmt.Sprintf("Method %s not allowed, %s required.", r.Method, allow[0]))
		return
	}
	var err error
	if rq.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		rq.fail(http.StatusBadRequest, "query: "+err.Error())
		return
	}
	if !s.admit(rq, cmd) {
		return
	}
	defer s.release(cmd)
	cmd.run(s, rq)
}

// allow lists the methods of a command. What only reads answers POST too, as
// Envoy does.
func (c *command) allow() []string {
	if c.post {
		return []string{http.MethodPost}
	}
	return []string{http.MethodGet, http.MethodHead, http.MethodPost}
}

// admit waits for its turn if the command is a heavy one.
func (s *Server) admit(r *request, cmd *command) bool {
	if cmd.stream {
		// A stream bounds its own writes.
		_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Time{})
	}
	if !cmd.heavy {
		return true
	}
	wait := time.NewTimer(responseTimeout / 2)
	defer wait.Stop()
	select {
	case s.heavy <- struct{}{}:
		return true
	case <-r.Context().Done():
	case <-wait.C:
		r.fail(http.StatusServiceUnavailable, "too many requests of this kind at once")
	}
	return false
}

func (s *Server) release(cmd *command) {
	if cmd.heavy {
		<-s.heavy
	}
}

// fail answers with a reason as text.
func (r *request) fail(status int, reason string) {
	r.ResponseWriter.Header().Set("Content-Type", textType)
	r.WriteHeader(status)
	if !strings.HasSuffix(reason, "\n") {
		reason += "\n"
	}
	_, _ = r.ResponseWriter.Write([]byte(reason)) // nobody left to tell
}

func (r *request) text(s string) {
	r.ResponseWriter.Header().Set("Content-Type", textType)
	_, _ = r.ResponseWriter.Write([]byte(s)) // nobody left to tell
}

func (r *request) ok() { r.text("OK\n") }

// json answers in Envoy's style, indented by one blank.
func (r *request) json(v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		r.fail(http.StatusInternalServerError, err.Error())
		return
	}
	r.ResponseWriter.Header().Set("Content-Type", jsonType)
	_, _ = r.ResponseWriter.Write(b.Bytes()) // nobody left to tell
}

// asJSON reads the parameter format, which may be text or json.
func (r *request) asJSON() (isJSON, ok bool) {
	switch f := r.query.Get("format"); f {
	case "", "text":
		return false, true
	case "json":
		return true, true
	default:
		r.fail(http.StatusBadRequest, fmt.Sprintf("format %q: want text or json", f))
		return false, false
	}
}

// regexp compiles the parameter's value, nil where it is not given.
func (r *request) regexp(name string) (re *regexp.Regexp, ok bool) {
	v := r.query.Get(name)
	if v == "" {
		return nil, true
	}
	if len(v) > maxRegexpBytes {
		r.fail(http.StatusBadRequest, fmt.Sprintf("%s: longer than %d bytes", name, maxRegexpBytes))
		return nil, false
	}
	re, err := regexp.Compile(v)
	if err != nil {
		r.fail(http.StatusBadRequest, fmt.Sprintf("%s: %v", name, err))
		return nil, false
	}
	return re, true
}

// only reports whether all parameters are known to the command: where something
// changes, a parameter that is misspelt must not change more than was meant.
func (r *request) only(names ...string) bool {
	for name := range r.query {
		if !slices.Contains(names, name) {
			r.fail(http.StatusBadRequest, fmt.Sprintf("unknown parameter %q; known: %s", name, strings.Join(names, ", ")))
			return false
		}
	}
	return true
}

func newPage(p Page) *command {
	c := &command{path: p.Path, help: p.Help, run: func(_ *Server, r *request) { r.json(p.JSON()) }}
	if p.Answer == nil {
		return c
	}
	var names []string
	for _, x := range p.Params {
		c.params, names = append(c.params, param{x[0], x[1]}), append(names, x[0])
	}
	c.run = func(_ *Server, r *request) {
		if !r.only(names...) {
			return
		}
		v, err := p.Answer(r.query)
		if err != nil {
			r.fail(http.StatusBadRequest, err.Error())
			return
		}
		r.json(v)
	}
	return c
}

func (s *Server) sorted() []*command {
	var list []*command
	for _, c := range s.commands {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *command) int { return cmp.Compare(a.path, b.path) })
	return list
}

func (s *Server) helpText() string {
	var b strings.Builder
	for _, c := range s.sorted() {
		method := ""
		if c.post {
			method = " (POST)"
		}
		fmt.Fprintf(&b, "  %s%s: %s\n", c.path, method, c.help)
		for _, p := range c.params {
			fmt.Fprintf(&b, "      %s: %s\n", p.name, p.help)
		}
	}
	return b.String()
}

func runHelp(s *Server, r *request) { r.text("admin commands are:\n" + s.helpText()) }

// runHome is a page of links. It has no buttons: a page's POST has an Origin.
func runHome(s *Server, r *request) {
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Outrigger admin</title>\n" +
		"<style>body{font-family:sans-serif}td{padding:3px 12px 3px 0;vertical-align:top}small{color:#555}</style></head>\n" +
		"<body><h1>Outrigger admin</h1><table>\n<tr><th align=\"left\">Command</th><th align=\"left\">Description</th></tr>\n")
	for _, c := range s.sorted() {
		path := html.EscapeString(c.path)
		if c.post {
			fmt.Fprintf(&b, "<tr><td>POST %s</td><td>%s", path, html.EscapeString(c.help))
		} else {
			fmt.Fprintf(&b, "<tr><td><a href=\"%s\">%s</a></td><td>%s", path, path, html.EscapeString(c.help))
		}
		for _, p := range c.params {
			fmt.Fprintf(&b, "<br><small>%s: %s</small>", html.EscapeString(p.name), html.EscapeString(p.help))
		}
		b.WriteString("</td></tr>\n")
	}
	b.WriteString("</table></body></html>\n")
	r.ResponseWriter.Header().Set("Content-Type", htmlType)
	_, _ = r.ResponseWriter.Write([]byte(b.String())) // nobody left to tell
}
