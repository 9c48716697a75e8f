// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/record"
)

// Tap says which exchanges of a service are copied to the lake, or which connections
// where its ports carry those.
type Tap struct {
	Header
	Spec TapSpec `json:"spec" rule:"required" doc:"What is copied, and how much."`
}

// TapSpec is the tap's body.
type TapSpec struct {
	TargetRef TargetRef   `json:"targetRef" rule:"required" doc:"The service whose inbound exchanges are copied. Of a service with ports of protocol tcp or tls it is the connections, one record each at its end."`
	Match     *TapMatch   `json:"match,omitempty" doc:"Which exchanges or connections; all when empty."`
	Capture   *TapCapture `json:"capture,omitempty" doc:"How much of the bodies, or of the first bytes of connections; none when empty. Credentials that a protocol other than HTTP sends in the clear are among the bytes."`
	Expires   *Duration   `json:"expires,omitempty" rule:"mindur=1s,maxdur=168h" doc:"Life of the tap, counted from when it was created; required when bodies are captured. Connections that began in it are recorded when they end, with the bytes that came in it."`
	Redact    *TapRedact  `json:"redact,omitempty" doc:"What is blanked, on top of the built-in secret headers. Bytes of connections are searched for patterns and secret names as text; headers and jsonPaths are refused for them."`
	Sink      *TapSink    `json:"sink,omitempty" doc:"Where copies go; the mesh's lake when empty."`
}

// TapMatch holds when all that it names holds.
type TapMatch struct {
	Status       *StatusMatch  `json:"status,omitempty" doc:"Response status: 5xx, 404, '>= 400'. Refused for connections, as method, pathPrefix and headers."`
	Method       string        `json:"method,omitempty" rule:"enum=GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH" doc:"Request method."`
	PathPrefix   string        `json:"pathPrefix,omitempty" rule:"maxlen=1024" doc:"Beginning of the path."`
	Headers      []HeaderValue `json:"headers,omitzero" rule:"maxitems=16" doc:"Request headers with exactly these values."`
	ServerNames  []string      `json:"serverNames,omitzero" rule:"maxitems=64" doc:"Server names (SNI), such as db.example.com or *.example.com: of the TLS that a connection carries, else of the TLS between sidecars."`
	Peers        []string      `json:"peers,omitzero" rule:"maxitems=64" doc:"Identities of callers, or their beginning and *: spiffe://mesh.internal/svc/web, spiffe://mesh.internal/*."`
	Flags        []string      `json:"flags,omitzero" rule:"maxitems=32" doc:"Response flags of the access log, one of which is set: UF, UH, UR."`
	Sample       *Percent      `json:"sample,omitempty" doc:"Share of the matching exchanges or connections; 100% when empty."`
	MaxPerSecond uint32        `json:"maxPerSecond,omitempty" rule:"min=1,max=1000000" doc:"Most copies a second from one sidecar; 100 when empty."`
}

// TapCapture bounds the body bytes that are kept.
type TapCapture struct {
	RequestBody  Size `json:"requestBody,omitempty" rule:"maxsize=1MiB" doc:"Bytes of the request body, or that the client of a connection sends first, up to 1MiB."`
	ResponseBody Size `json:"responseBody,omitempty" rule:"maxsize=1MiB" doc:"Bytes of the response body, or that the server of a connection sends first, up to 1MiB."`
}

// TapRedact lists what never leaves the sidecar.
type TapRedact struct {
	Headers   []string `json:"headers,omitzero" rule:"maxitems=64" doc:"Header names."`
	JSONPaths []string `json:"jsonPaths,omitzero" rule:"maxitems=64" doc:"Paths into JSON bodies, such as $.card.number."`
	Patterns  []string `json:"patterns,omitzero" rule:"maxitems=16,enum=payment-card|iban|email|jwt" doc:"Built-in detectors."`
}

// TapSink is where copies go: the lake when no field is set.
type TapSink struct {
	File  string       `json:"file,omitempty" rule:"maxlen=4096" doc:"A file of the sidecar's host, one JSON object a line."`
	Kafka *Unsupported `json:"kafka,omitempty"`
	HTTP  *Unsupported `json:"http,omitempty"`
	GRPC  *Unsupported `json:"grpc,omitempty"`
}

var jsonPathPattern = regexp.MustCompile(`^\$(\.[A-Za-z_][A-Za-z0-9_-]*|\[(\d+|\*|'[^']+')\])+$`)

func (t *Tap) check(f *faults) {
	checkObjectName(f, t.Metadata.Name)
	checkServiceName(f, "spec.targetRef.name", t.Spec.TargetRef.Name)
	if m := t.Spec.Match; m != nil {
		if m.PathPrefix != "" && !strings.HasPrefix(m.PathPrefix, "/") {
			f.add("spec.match.pathPrefix", "want a path that begins with /, got %q", clip(m.PathPrefix))
		}
		for i, h := range m.Headers {
			checkHeaderName(f, index("spec.match.headers", i)+".name", h.Name)
		}
		m.checkConnection(f)
	}
	if c := t.Spec.Capture; c != nil && c.RequestBody+c.ResponseBody > 0 && t.Spec.Expires == nil {
		f.add("spec.expires", "missing: a tap that reads bodies always ends, such as after 2h")
	}
	if r := t.Spec.Redact; r != nil {
		for i, h := range r.Headers {
			checkHeaderName(f, index("spec.redact.headers", i), h)
		}
		for i, p := range r.JSONPaths {
			if len(p) > 256 || !jsonPathPattern.MatchString(p) {
				f.add(index("spec.redact.jsonPaths", i), "want a path such as $.card.number or $.items[*].iban, got %q", clip(p))
			}
		}
	}
	if s := t.Spec.Sink; s != nil && s.File != "" && (!strings.HasPrefix(s.File, "/") || strings.Contains(s.File+"/", "/../")) {
		f.add("spec.sink.file", "want an absolute path without .., got %q", clip(s.File))
	}
}

func (m *TapMatch) checkConnection(f *faults) {
	for i, n := range m.ServerNames {
		if bare := strings.TrimPrefix(n, "*."); bare == "" || len(n) > 253 || strings.Contains(bare, "*") {
			f.add(index("spec.match.serverNames", i), "want a name such as db.example.com or *.example.com, got %q", clip(n))
		}
	}
	for i, p := range m.Peers {
		if bare := strings.TrimSuffix(p, "*"); len(p) > 2048 || !strings.Contains(bare, "://") || strings.Contains(bare, "*") {
			f.add(index("spec.match.peers", i), "want an identity such as spiffe://mesh.internal/svc/web, or its beginning and *, got %q", clip(p))
		}
	}
	for i, s := range m.Flags {
		if _, ok := record.ParseFlag(s); !ok {
			f.add(index("spec.match.flags", i), "want a response flag such as UF, UH or UR, got %q", clip(s))
		}
	}
}

// Misfits says what of the tap cannot be in force where connections are passed on, each
// with its field. Such a tap copies nothing.
func (t *Tap) Misfits() (out []string) {
	refuse := func(is bool, field, why string) {
		if is {
			out = append(out, field+": service "+t.Spec.TargetRef.Name+" carries connections, "+why)
		}
	}
	if m := t.Spec.Match; m != nil {
		const none = "which have none: take it out, or match serverNames, peers or flags"
		refuse(m.Status != nil, "spec.match.status", none)
		refuse(m.Method != "", "spec.match.method", none)
		refuse(m.PathPrefix != "", "spec.match.pathPrefix", none)
		refuse(len(m.Headers) > 0, "spec.match.headers", none)
	}
	c, r := t.Spec.Capture, t.Spec.Redact
	if c != nil && r != nil && c.RequestBody+c.ResponseBody > 0 {
		const unsure = "to whose bytes it cannot be applied: take it out, or capture no bytes"
		refuse(len(r.Headers) > 0, "spec.redact.headers", unsure)
		refuse(len(r.JSONPaths) > 0, "spec.redact.jsonPaths", unsure)
	}
	return out
}

// ExpiresAt is when the tap ends, or the zero time when it does not.
func (t *Tap) ExpiresAt() time.Time {
	if t.Spec.Expires == nil {
		return time.Time{}
	}
	return t.Metadata.CreatedAt.Add(t.Spec.Expires.Std())
}

// TapsOf lists the taps on a service that have not ended, the oldest first.
func (m *Model) TapsOf(service string, now time.Time) []*Tap {
	var out []*Tap
	for _, t := range Ordered[*Tap](m, KindTap) {
		if end := t.ExpiresAt(); t.Spec.TargetRef.Name == service && (end.IsZero() || now.Before(end)) {
			out = append(out, t)
		}
	}
	return out
}

func (s *TapSink) String() string {
	if s == nil || s.File == "" {
		return "lake"
	}
	return fmt.Sprintf("file %s", s.File)
}
