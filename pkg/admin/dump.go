// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// dumpLists are the lists of resources in Envoy's config dumps, with the message
// that their elements are, in the dump's namespace.
var dumpLists = map[string]string{
	"static_clusters":              "StaticCluster",
	"dynamic_active_clusters":      "DynamicCluster",
	"dynamic_warming_clusters":     "DynamicCluster",
	"static_listeners":             "StaticListener",
	"dynamic_listeners":            "DynamicListener",
	"static_route_configs":         "StaticRouteConfig",
	"dynamic_route_configs":        "DynamicRouteConfig",
	"inline_scoped_route_configs":  "InlineScopedRouteConfigs",
	"dynamic_scoped_route_configs": "DynamicScopedRouteConfigs",
	"static_endpoint_configs":      "StaticEndpointConfig",
	"dynamic_endpoint_configs":     "DynamicEndpointConfig",
	"static_secrets":               "StaticSecret",
	"dynamic_active_secrets":       "DynamicSecret",
	"dynamic_warming_secrets":      "DynamicSecret",
	"ecds_filters":                 "EcdsFilterConfig",
}

// object is a JSON object.
type object = map[string]any

func runConfigDump(s *Server, r *request) {
	re, ok := r.regexp("name_regex")
	if !ok {
		return
	}
	eds := r.query.Has("include_eds")
	b, err := s.config.Dump(eds || strings.HasSuffix(r.query.Get("resource"), "_endpoint_configs"))
	if err != nil {
		r.fail(http.StatusServiceUnavailable, "config dump: "+err.Error())
		return
	}
	resource, mask := r.query.Get("resource"), r.query.Get("mask")
	if resource == "" && mask == "" && re == nil {
		r.ResponseWriter.Header().Set("Content-Type", jsonType)
		_, _ = r.ResponseWriter.Write(b) // nobody left to tell
		return
	}
	var dump struct {
		Configs []object `json:"configs"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // 64-bit numbers stay what they are
	if err := d.Decode(&dump); err != nil {
		r.fail(http.StatusInternalServerError, "config dump: "+err.Error())
		return
	}
	if re != nil {
		for _, c := range dump.Configs {
			keepNames(c, re)
		}
	}
	if resource != "" {
		dump.Configs, err = pickList(dump.Configs, resource)
		if err != nil {
			r.fail(http.StatusNotFound, err.Error())
			return
		}
	}
	if mask != "" {
		if dump.Configs, err = applyMask(dump.Configs, mask); err != nil {
			r.fail(http.StatusBadRequest, err.Error())
			return
		}
	}
	r.json(dump)
}

// pickList makes the elements of one list the dump's configs, each with its type.
func pickList(configs []object, name string) ([]object, error) {
	known := false
	for _, c := range configs {
		list, ok := c[name].([]any)
		if !ok {
			_, there := c[name]
			known = known || there
			continue
		}
		out := []object{}
		for _, e := range list {
			o, ok := e.(object)
			if !ok {
				continue
			}
			if dumpType, ok := c["@type"].(string); ok && dumpLists[name] != "" {
				o["@type"] = dumpType + "." + dumpLists[name]
			}
			out = append(out, o)
		}
		return out, nil
	}
	switch {
	case known:
		return nil, fmt.Errorf("%s is not a repeated field. Use ?mask=%s to get only this field", name, name)
	case dumpLists[name] != "":
		return []object{}, nil // an empty list is left out of the dump
	}
	return nil, fmt.Errorf("%s not found in config dump", name)
}

// keepNames drops from a dump's lists what is not named as asked.
func keepNames(c object, re *regexp.Regexp) {
	for name := range dumpLists {
		list, ok := c[name].([]any)
		if !ok {
			continue
		}
		c[name] = slices.DeleteFunc(list, func(e any) bool {
			n, ok := nameOf(e)
			return !ok || !re.MatchString(n)
		})
	}
}

// nameOf is the name of an element of a list, or of the resource in it.
func nameOf(e any) (string, bool) {
	o, ok := e.(object)
	if !ok {
		return "", false
	}
	for _, key := range [...]string{"name", "cluster_name"} {
		if n, ok := o[key].(string); ok {
			return n, true
		}
	}
	for _, key := range [...]string{"cluster", "listener", "route_config", "endpoint_config", "secret", "ecds_filter"} {
		if inner, ok := o[key].(object); ok {
			return nameOf(inner)
		}
	}
	return "", false
}

// applyMask keeps the fields that the mask names, as protobuf's FieldMask does:
// paths of field names, separated by commas.
func applyMask(configs []object, mask string) ([]object, error) {
	var paths [][]string
	for p := range strings.SplitSeq(mask, ",") {
		if p = strings.TrimSpace(p); p == "" {
			return nil, fmt.Errorf("mask %q: an empty path", mask)
		}
		paths = append(paths, strings.Split(p, "."))
	}
	out := []object{}
	for _, c := range configs {
		if m := masked(c, paths); len(m) > 0 {
			if t, ok := c["@type"]; ok {
				m["@type"] = t
			}
			out = append(out, m)
		}
	}
	if len(out) == 0 && len(configs) > 0 {
		return nil, fmt.Errorf("mask %q: no such field in what was asked for", mask)
	}
	return out, nil
}

func masked(o object, paths [][]string) object {
	out := object{}
	inner := map[string][][]string{}
	for _, p := range paths {
		v, ok := o[p[0]]
		if !ok {
			continue
		}
		if len(p) == 1 {
			out[p[0]] = v
			continue
		}
		inner[p[0]] = append(inner[p[0]], p[1:])
	}
	for name, rest := range inner {
		if _, whole := out[name]; whole {
			continue
		}
		switch v := o[name].(type) {
		case object:
			if m := masked(v, rest); len(m) > 0 {
				out[name] = m
			}
		case []any:
			list := []any{}
			for _, e := range v {
				if eo, ok := e.(object); ok {
					list = append(list, masked(eo, rest))
				}
			}
			out[name] = list
		}
	}
	return out
}
