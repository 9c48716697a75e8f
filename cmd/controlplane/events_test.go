// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// What a stream holds reaches a terminal as JSON of one line without control characters,
// or not at all.
func TestEventsAsJSONSayNothingToATerminal(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "event: x\ndata: {\"message\":\"a\u009b2J\u007f\\u001b\",\ndata: \"b\":1}\n\n", "event: x\ndata: \x1b]0;owned\a\n\n")
	}))
	defer srv.Close()
	var out bytes.Buffer
	c := &client{io: streams{out: &out}, server: srv.URL}
	err := c.followEvents(t.Context(), url.Values{}, "json")
	if want := `{"message":"a\u009b2J\u007f\u001b","b":1}` + "\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if err == nil || !strings.Contains(err.Error(), "invalid character") {
		t.Errorf("of what is no JSON: %v", err)
	}
	out.Reset()
	if err := writeJSON(&out, map[string]string{"a": "\u009b2J\u00e9"}); err != nil || out.String() != "{\n  \"a\": \"\\u009b2J\u00e9\"\n}\n" {
		t.Errorf("indented: %v %q", err, out.String())
	}
}
