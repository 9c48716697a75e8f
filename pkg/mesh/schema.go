// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"reflect"
	"strconv"
)

const schemaDialect = "https://json-schema.org/draft/2020-12/schema"

// Schema is the kind's JSON Schema (draft 2020-12), made from the same field
// tags that the decoder enforces. The map belongs to the caller.
func (k Kind) Schema() map[string]any {
	g := schemaGenerator{defs: map[string]any{}}
	root := g.object(reflect.TypeOf(k.New()).Elem())
	root["$schema"] = schemaDialect
	root["$id"] = "https://outrigger.io/schemas/v1/" + k.Name + ".json"
	root["title"] = k.Name
	root["description"] = k.About
	props := root["properties"].(map[string]any)
	props["apiVersion"] = map[string]any{"const": k.APIVersion, "description": "Group and version of the kind."}
	if older := olderVersions[k.Name]; older != nil {
		props["apiVersion"] = map[string]any{"enum": append([]string{k.APIVersion}, older...), "description": "Group and version of the kind; older ones are read as the first."}
	}
	props["kind"] = map[string]any{"const": k.Name, "description": "Kind of the object."}
	// What the API answers may be applied again.
	props["status"] = map[string]any{"type": "object", "description": "Written by the control plane, ignored when applied."}
	if len(g.defs) > 0 {
		root["$defs"] = g.defs
	}
	return root
}

// SchemaOf is the schema of any struct whose fields carry the rule and doc tags.
func SchemaOf(v any) map[string]any {
	g := schemaGenerator{defs: map[string]any{}}
	root := g.object(reflect.TypeOf(v))
	if len(g.defs) > 0 {
		root["$defs"] = g.defs
	}
	return root
}

type schemaGenerator struct {
	defs map[string]any
}

func (g *schemaGenerator) object(t reflect.Type) map[string]any {
	props := map[string]any{}
	var required []string
	for _, f := range structFields(t) {
		if f.Type == reflect.PointerTo(unsupportedType) {
			continue
		}
		r := parseRules(f)
		s := g.value(f.Type, r)
		if doc := f.Tag.Get("doc"); doc != "" {
			s["description"] = doc
		}
		props[jsonName(f)] = s
		if r.required {
			required = append(required, jsonName(f))
		}
	}
	out := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// special are the types with a text form of their own.
var special = map[reflect.Type]map[string]any{
	durationType:                       {"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`, "examples": []string{"250ms", "15s"}},
	timeType:                           {"type": "string", "format": "date-time"},
	reflect.TypeFor[Size]():            {"type": []string{"string", "integer"}, "pattern": `^[0-9]+ *(B|KiB|MiB|GiB|kB|KB|MB|GB)?$`, "minimum": 0, "examples": []string{"64KiB"}},
	reflect.TypeFor[Percent]():         {"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?%$`, "examples": []string{"20%"}},
	reflect.TypeFor[StatusMatch]():     {"type": []string{"string", "integer"}, "examples": []string{"5xx", ">= 400"}},
	reflect.TypeFor[DurationMatch]():   {"type": "string", "pattern": `^(>=|<=|>|<|=) *[0-9]`, "examples": []string{"> 500ms"}},
	reflect.TypeFor[Health]():          {"type": "string", "enum": healthNames[:]},
	reflect.TypeFor[AccessLogFormat](): {"anyOf": []any{map[string]any{"type": "string"}, map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}}},
}

func (g *schemaGenerator) value(t reflect.Type, r rules) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s, ok := special[t]; ok {
		return clone(s)
	}
	switch t.Kind() {
	case reflect.Struct:
		name := t.Name()
		if _, done := g.defs[name]; !done {
			g.defs[name] = map[string]any{} // ends recursion
			g.defs[name] = g.object(t)
		}
		return map[string]any{"$ref": "#/$defs/" + name}
	case reflect.Slice:
		s := map[string]any{"type": "array", "items": g.value(t.Elem(), r.element())}
		if r.minItems > 0 {
			s["minItems"] = r.minItems
		}
		if r.maxItems > 0 {
			s["maxItems"] = r.maxItems
		}
		return s
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return stringSchema(r)
	}
	return numberSchema(t, r)
}

func stringSchema(r rules) map[string]any {
	s := map[string]any{"type": "string"}
	if r.required {
		s["minLength"] = 1
	}
	if r.maxLen > 0 && r.maxLen != elementMaxLen {
		s["maxLength"] = r.maxLen
	}
	if len(r.enum) > 0 {
		s["enum"] = r.enum
	}
	return s
}

func numberSchema(t reflect.Type, r rules) map[string]any {
	lo, hi := r.bounds(reflect.Zero(t))
	s := map[string]any{"type": "integer", "minimum": lo}
	if t.Bits() < 64 || r.hasMax {
		s["maximum"] = hi
	}
	if len(r.enum) > 0 {
		values := make([]int, len(r.enum))
		for i, e := range r.enum {
			values[i], _ = strconv.Atoi(e) // a rule of a number holds numbers, TestTheRulesOfEveryKindAreSound
		}
		s["enum"] = values
	}
	return s
}

func clone(m map[string]any) map[string]any {
	out := make(map[string]any, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}
