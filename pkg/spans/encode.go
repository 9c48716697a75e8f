// SPDX-License-Identifier: Apache-2.0

package spans

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// AppendJSON appends the span as a Zipkin version 2 JSON object, with the fields
// in Zipkin's own order and the absent ones left out.
func (s *Span) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"traceId":"`...)
	dst = append(dst, s.TraceID...)
	if s.ParentID != "" {
		dst = append(dst, `","parentId":"`...)
		dst = append(dst, s.ParentID...)
	}
	dst = append(dst, `","id":"`...)
	dst = append(dst, s.ID...)
	dst = append(dst, '"')
	if s.Kind != "" {
		dst = appendText(dst, `,"kind":`, string(s.Kind))
	}
	if s.Name != "" {
		dst = appendText(dst, `,"name":`, s.Name)
	}
	if s.Timestamp > 0 {
		dst = strconv.AppendInt(append(dst, `,"timestamp":`...), s.Timestamp, 10)
	}
	if s.Duration > 0 {
		dst = strconv.AppendInt(append(dst, `,"duration":`...), s.Duration, 10)
	}
	dst = s.Local.append(dst, `,"localEndpoint":{`)
	dst = s.Remote.append(dst, `,"remoteEndpoint":{`)
	dst = s.appendAnnotations(dst)
	dst = s.appendTags(dst)
	if s.Debug {
		dst = append(dst, `,"debug":true`...)
	}
	if s.Shared {
		dst = append(dst, `,"shared":true`...)
	}
	return append(dst, '}')
}

func (s *Span) appendAnnotations(dst []byte) []byte {
	for i, a := range s.Annotations {
		if i == 0 {
			dst = append(dst, `,"annotations":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(append(dst, `{"timestamp":`...), a.Timestamp, 10)
		dst = append(appendText(dst, `,"value":`, a.Value), '}')
	}
	if len(s.Annotations) > 0 {
		dst = append(dst, ']')
	}
	return dst
}

func (s *Span) appendTags(dst []byte) []byte {
	for i, t := range s.Tags {
		if i == 0 {
			dst = append(dst, `,"tags":{`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendString(dst, t.Key)
		dst = appendText(dst, ":", t.Value)
	}
	if len(s.Tags) > 0 {
		dst = append(dst, '}')
	}
	return dst
}

func (e *Endpoint) append(dst []byte, open string) []byte {
	if e.empty() {
		return dst
	}
	dst = append(dst, open...)
	first := len(dst)
	if e.ServiceName != "" {
		dst = append(appendText(dst, `"serviceName":`, e.ServiceName), ',')
	}
	if e.IPv4.IsValid() {
		dst = append(e.IPv4.AppendTo(append(dst, `"ipv4":"`...)), `",`...)
	}
	if e.IPv6.IsValid() {
		dst = append(e.IPv6.AppendTo(append(dst, `"ipv6":"`...)), `",`...)
	}
	if e.Port > 0 {
		dst = append(strconv.AppendUint(append(dst, `"port":`...), uint64(e.Port), 10), ',')
	}
	if len(dst) > first {
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

func appendText(dst []byte, key, value string) []byte {
	return appendString(append(dst, key...), value)
}

// appendString appends value as a JSON string that is also harmless inside HTML:
// span names and tags carry what callers of the mesh sent.
func appendString(dst []byte, value string) []byte {
	plain := true
	for i := range len(value) {
		if c := value[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(dst, '"'), value...), '"')
	}
	quoted, _ := json.Marshal(value) // a string always has an encoding
	return append(dst, quoted...)
}

// AppendJSONList appends spans as a JSON list.
func AppendJSONList(dst []byte, list []*Span) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = s.AppendJSON(dst)
	}
	return append(dst, ']')
}
