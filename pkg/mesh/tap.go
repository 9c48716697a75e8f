// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Tap says which exchanges of a service are copied to the lake.
type Tap struct {
	Header
	Spec TapSpec `json:"spec" rule:"required" doc:"What is copied, and how much."`
}

// TapSpec is the tap's body.
type TapSpec struct {
	TargetRef TargetRef   `json:"targetRef" rule:"required" doc:"The service whose inbound exchanges are copied."`
	Match     *TapMatch   `json:"match,omitempty" doc:"Which exchanges; all when empty."`
	Capture   *TapCapture `json:"capture,omitempty" doc:"How much of the bodies; none when empty."`
	Expires   *Duration   `json:"expires,omitempty" rule:"mindur=1s,maxdur=168h" doc:"Life of the tap, counted from when it was created; required when bodies are captured."`
	Redact    *TapRedact  `json:"redact,omitempty" doc:"What is blanked, on top of the built-in secret headers."`
	Sink      *TapSink    `json:"sink,omitempty" doc:"Where copies go; the mesh's lake when empty."`
}

// TapMatch holds when all that it names holds.
type TapMatch struct {
	Status       *StatusMatch  `json:"status,omitempty" doc:"Response status: 5xx, 404, '>= 400'."`
	Method       string        `json:"method,omitempty" rule:"enum=GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH" doc:"Request method."`
	PathPrefix   string        `json:"pathPrefix,omitempty" rule:"maxlen=1024" doc:"Beginning of the path."`
	Headers      []HeaderValue `json:"headers,omitzero" rule:"maxitems=16" doc:"Request headers with exactly these values."`
	Sample       *Percent      `json:"sample,omitempty" doc:"Share of the matching exchanges; 100% when empty."`
	MaxPerSecond uint32        `json:"maxPerSecond,omitempty" rule:"min=1,max=1000000" doc:"Most copies a second from one sidecar; 100 when empty."`
}

// TapCapture bounds the body bytes that are kept.
type TapCapture struct {
	RequestBody  Size `json:"requestBody,omitempty" rule:"maxsize=1MiB" doc:"Bytes of the request body, up to 1MiB."`
	ResponseBody Size `json:"responseBody,omitempty" rule:"maxsize=1MiB" doc:"Bytes of the response body, up to 1MiB."`
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
