// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"encoding/json"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
	"github.com/outrigger-mesh/outrigger/pkg/xds/xdstest"
)

func TestTheDumpNamesWhatAListenerWasAskedForBy(t *testing.T) {
	s := xdstest.Start(t, xdstest.Options{ADS: true})
	s.Set(t, nodeID, snapshot(t, "7", good("ads", "7")))
	c := start(t, bootstrapFor(t, "ads", s), settings{asked: []client.Asked{
		{Name: "in", By: "--flag in", Missing: "nobody has it"}, {Name: "db:1", By: "--flag db", Missing: "nobody has it"},
	}})
	c.wait(t, "the listener", func(s *resource.Snapshot) bool { return s.Listeners["in"] != nil })
	text, err := c.client.Dump(false)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Configs []struct {
			Listeners []struct {
				Name   string
				Status string `json:"client_status"`
				Active struct {
					Listener struct {
						Metadata struct {
							Filter map[string]map[string]string `json:"filter_metadata"`
						}
					}
				} `json:"active_state"`
				Error struct{ Details string } `json:"error_state"`
			} `json:"dynamic_listeners"`
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range d.Configs {
		for _, l := range m.Listeners {
			found[l.Name] = l.Status + " " + l.Active.Listener.Metadata.Filter["io.outrigger"]["askedForBy"] + l.Error.Details
		}
	}
	if found["in"] != "ACKED --flag in" || found["db:1"] != "DOES_NOT_EXIST --flag db: nobody has it" {
		t.Errorf("the dump has %v", found)
	}
}
