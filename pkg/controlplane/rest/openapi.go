// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, s.Document())
}

var pathParam = regexp.MustCompile(`\{([a-z]+)\}`)

// Document is the OpenAPI 3.1 document of the API, made from the table of routes.
func (s *Server) Document() map[string]any {
	paths := map[string]any{}
	for _, r := range s.routes() {
		item, ok := paths[r.path].(map[string]any)
		if !ok {
			item = map[string]any{}
			paths[r.path] = item
		}
		item[strings.ToLower(r.method)] = r.operation()
	}
	schemas := map[string]any{"Problem": componentSchema(mesh.SchemaOf(problemDoc{}), "Problem")}
	var kinds []any
	for _, k := range mesh.Kinds() {
		kinds = append(kinds, ref(k.Name))
		schemas[k.Name] = componentSchema(k.Schema(), k.Name)
	}
	schemas["Object"] = map[string]any{"oneOf": kinds}
	return map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{
			"title": "Outrigger control plane", "version": "v1",
			"description": "Objects, instances and sidecars of the mesh. Writes take If-Match and answer with the new revision as ETag. Errors are RFC 9457 problem documents.",
			"license":     map[string]any{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas, "securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}}},
		"security":   []any{map[string]any{}, map[string]any{"token": []any{}}},
	}
}

// problemDoc documents problem.
type problemDoc struct {
	Type     string         `json:"type" doc:"about:blank."`
	Title    string         `json:"title" rule:"required" doc:"The kind of fault."`
	Status   uint16         `json:"status" rule:"required" doc:"HTTP status."`
	Detail   string         `json:"detail,omitempty" doc:"What is wrong, in a sentence."`
	Instance string         `json:"instance,omitempty" doc:"Path of the request."`
	Errors   []problemField `json:"errors,omitempty" doc:"Each wrong field."`
	Current  uint64         `json:"currentRevision,omitempty" doc:"Revision there is, when the one asked for is not."`
}

type problemField struct {
	Object string `json:"object,omitempty" doc:"Kind/name."`
	Field  string `json:"field,omitempty" doc:"Path of the field."`
	Line   uint32 `json:"line,omitempty" doc:"Line of the body."`
	Column uint32 `json:"column,omitempty" doc:"Column of the body."`
	Reason string `json:"reason" rule:"required" doc:"What is wrong."`
}

func ref(name string) map[string]any { return map[string]any{"$ref": "#/components/schemas/" + name} }

// componentSchema moves a schema below components, where its own references begin elsewhere.
func componentSchema(v map[string]any, name string) map[string]any {
	delete(v, "$schema")
	delete(v, "$id")
	return rebase(v, "#/components/schemas/"+name+"/$defs/").(map[string]any)
}

func rebase(v any, to string) any {
	switch x := v.(type) {
	case map[string]any:
		for k, item := range x {
			if text, ok := item.(string); ok && k == "$ref" {
				x[k] = to + strings.TrimPrefix(text, "#/$defs/")
				continue
			}
			x[k] = rebase(item, to)
		}
	case []any:
		for i := range x {
			x[i] = rebase(x[i], to)
		}
	}
	return v
}

func (r route) operation() map[string]any {
	var params []any
	for _, m := range pathParam.FindAllStringSubmatch(r.path, -1) {
		params = append(params, map[string]any{"name": m[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
	}
	for _, p := range r.query {
		params = append(params, map[string]any{"name": p.name, "in": "query", "description": p.about, "schema": map[string]any{"type": p.kind}})
	}
	if r.write {
		params = append(params,
			map[string]any{"name": "If-Match", "in": "header", "description": "Write only if this is the current revision, or * for any.", "schema": map[string]any{"type": "string"}},
			map[string]any{"name": "If-None-Match", "in": "header", "description": "* writes only what is not there yet.", "schema": map[string]any{"type": "string"}})
	}
	op := map[string]any{"operationId": r.id, "summary": r.about, "responses": r.responses()}
	if params != nil {
		op["parameters"] = params
	}
	if schema := r.bodySchema(); schema != nil {
		op["requestBody"] = map[string]any{"required": r.id != "heartbeat", "content": map[string]any{
			"application/json": map[string]any{"schema": schema}, "application/yaml": map[string]any{"schema": schema},
		}}
	}
	return op
}

func (r route) bodySchema() map[string]any {
	switch {
	case r.body != nil:
		return mesh.SchemaOf(r.body)
	case r.object && r.method == http.MethodPut:
		return ref("Object")
	}
	return nil
}

func (r route) responses() map[string]any {
	out := map[string]any{}
	for _, code := range r.answers {
		a := map[string]any{"description": http.StatusText(code)}
		switch {
		case code >= 400:
			a["content"] = map[string]any{"application/problem+json": map[string]any{"schema": ref("Problem")}}
		case r.object && code != http.StatusNotModified:
			a["content"] = map[string]any{"application/json": map[string]any{"schema": ref("Object")}}
			a["headers"] = map[string]any{"ETag": map[string]any{"description": "Revision.", "schema": map[string]any{"type": "string"}}}
		}
		out[strconv.Itoa(code)] = a
	}
	return out
}
