// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/json"
	"reflect"
	"strings"
)

// unmarshalNode accepts text, json, a line with command operators, or a map of them.
func (a *AccessLogFormat) unmarshalNode(d *decoder, path string, n *node) {
	switch {
	case n.kind == nodeMap:
		fields := map[string]string{}
		d.stringMap(n, path, reflect.ValueOf(&fields).Elem(), rules{maxItems: 128})
		a.JSON, a.Fields = true, fields
		if len(fields) == 0 {
			d.fault(n, path, "want at least one field")
		}
	case n.kind != nodeScalar && n.kind != nodeQuoted:
		d.fault(n, path, "want text, json, a format line or a map, got %s", nodeKindNames[n.kind])
	case n.text == "json":
		a.JSON = true
	case n.text == "text":
	case strings.Contains(n.text, "%"):
		a.Line = n.text
	default:
		d.fault(n, path, "want text, json, or a line with command operators such as %%RESPONSE_CODE%%, got %q", clip(n.text))
	}
}

// MarshalJSON writes the shape that was read.
func (a *AccessLogFormat) MarshalJSON() ([]byte, error) {
	switch {
	case len(a.Fields) > 0:
		return json.Marshal(a.Fields)
	case a.JSON:
		return json.Marshal("json")
	case a.Line != "":
		return json.Marshal(a.Line)
	}
	return json.Marshal("text")
}
