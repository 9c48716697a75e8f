// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// sourceRegistry is the source of services that have no object.
const sourceRegistry = "registry"

// getAll shows all objects, and the services that only the registry knows.
func (c *client) getAll(ctx context.Context, output string) error {
	items, err := pages[json.RawMessage](ctx, c, "/v1/objects", nil)
	if err != nil {
		return err
	}
	more, err := c.allRegistered(ctx)
	if err != nil {
		return err
	}
	items = append(more, items...)
	if output == "json" || output == "yaml" {
		return c.writeObjects(items, output)
	}
	if len(items) == 0 {
		_, err := fmt.Fprintln(c.io.out, "no service has registered and no object was applied yet")
		return err
	}
	return c.objectRows(items, output == "wide", true)
}

// allRegistered are the services that only the registry knows, as registered makes them.
func (c *client) allRegistered(ctx context.Context) ([]json.RawMessage, error) {
	list, err := pages[serviceRow](ctx, c, "/v1/services", nil)
	if err != nil {
		return nil, err
	}
	var out []json.RawMessage
	for _, s := range list {
		if s.Declared {
			continue
		}
		o, err := registeredObject(s)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// registered is a service that only the registry knows, in the form of an object.
func (c *client) registered(ctx context.Context, name string) (json.RawMessage, error) {
	var s serviceRow
	if _, err := c.call(ctx, http.MethodGet, "/v1/services/"+url.PathEscape(name), nil, nil, &s); err != nil {
		return nil, err
	}
	return registeredObject(s)
}

// registeredObject is what the Service object of a service would be that has none.
func registeredObject(s serviceRow) (json.RawMessage, error) {
	type metadata struct {
		Name string `json:"name"`
	}
	type status struct {
		mesh.Status
		Source    string `json:"source"`
		Instances int    `json:"instances"`
		Healthy   int    `json:"healthy"`
	}
	kind, err := mesh.KindNamed(mesh.KindService)
	if err != nil {
		return nil, err
	}
	x := status{Source: sourceRegistry, Instances: s.Instances, Healthy: s.Healthy}
	x.Accepted = true
	x.Conditions = []mesh.Condition{{
		Type: "RegisteredOnly", Status: true, Reason: "RegisteredOnly",
		Message: "there is no object of it: it is known by its registered instances, with the defaults for a service of HTTP",
	}}
	return json.Marshal(struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Metadata   metadata `json:"metadata"`
		Spec       struct{} `json:"spec"`
		Status     status   `json:"status"`
	}{kind.APIVersion, kind.Name, metadata{s.Name}, struct{}{}, x})
}

// objectTable shows objects of one kind.
func (c *client) objectTable(items []json.RawMessage, wide bool) error {
	return c.objectRows(items, wide, false)
}

// objectRows shows objects, with their kinds or of one.
func (c *client) objectRows(items []json.RawMessage, wide, kinds bool) error {
	now := time.Now()
	header := []string{"NAME", "TARGET", "ACCEPTED", "SOURCE", "REVISION", "AGE"}
	if wide {
		header = append(header, "NOTES")
	}
	var rows [][]string
	for _, item := range items {
		var o struct {
			Kind     string        `json:"kind"`
			Metadata mesh.Metadata `json:"metadata"`
			Spec     struct {
				TargetRef  struct{ Name string } `json:"targetRef"`
				ParentRefs []struct{ Name string }
			} `json:"spec"`
			Status struct {
				mesh.Status
				Source string `json:"source"`
			} `json:"status"`
		}
		if err := json.NewDecoder(bytes.NewReader(item)).Decode(&o); err != nil {
			return c.stranger(err)
		}
		target := []string{}
		for _, p := range o.Spec.ParentRefs {
			target = append(target, p.Name)
		}
		if o.Spec.TargetRef.Name != "" {
			target = append(target, o.Spec.TargetRef.Name)
		}
		accepted := strconv.FormatBool(o.Status.Accepted)
		if n := len(o.Status.Warnings()); n > 0 && o.Status.Source != sourceRegistry {
			accepted += " (" + counted(n, "warning") + ")"
		}
		name, revision := o.Metadata.Name, ""
		if kinds {
			name = o.Kind + "/" + name
		}
		if o.Metadata.Revision > 0 {
			revision = strconv.FormatUint(o.Metadata.Revision, 10)
		}
		row := []string{name, strings.Join(target, ","), accepted, o.Status.Source, revision, age(o.Metadata.CreatedAt, now)}
		if wide {
			row = append(row, strings.Join(o.Status.Warnings(), "; "))
		}
		rows = append(rows, row)
	}
	return table(c.io.out, header, rows)
}
