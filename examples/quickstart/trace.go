// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// span is what matters of a Zipkin v2 span.
type span struct {
	ID       string `json:"id"`
	ParentID string `json:"parentId"`
	Kind     string `json:"kind"`
	Local    struct {
		ServiceName string `json:"serviceName"`
	} `json:"localEndpoint"`
}

// traced sends a request that is to be traced and asks the control plane for it.
func (s *story) traced(ctx context.Context) (string, error) {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	trace, parent := hex.EncodeToString(b[:16]), hex.EncodeToString(b[16:])
	header := http.Header{"Traceparent": {"00-" + trace + "-" + parent + "-01"}}
	a, _, err := ask(ctx, s.mesh.client, s.mesh.entry(), header)
	if err == nil {
		err = a.complete()
	}
	if err != nil {
		return "", err
	}
	began := time.Now()
	last := errors.New("the control plane was not asked")
	err = poll(ctx, time.Minute, func() error {
		body, err := s.mesh.get(ctx, s.mesh.api("/zipkin/api/v2/trace/"+trace))
		if err == nil {
			var spans []span
			if err = json.Unmarshal(body, &spans); err == nil {
				err = completeTrace(spans, parent)
			}
		}
		if ctx.Err() == nil {
			last = err
		}
		return err
	})
	if err != nil {
		return "", orCause(err, last)
	}
	return fmt.Sprintf("%s, whole %v after the request", s.mesh.api("/zipkin/api/v2/trace/"+trace), time.Since(began).Round(time.Millisecond)), nil
}

// completeTrace wants the server and client spans of the whole chain, each below
// another one or below the caller's own span.
func completeTrace(spans []span, caller string) error {
	var got []string
	ids := map[string]bool{caller: true}
	for _, x := range spans {
		got = append(got, x.Local.ServiceName+" "+x.Kind)
		ids[x.ID] = true
	}
	for _, want := range []string{"web SERVER", "web CLIENT", "orders SERVER", "orders CLIENT", "payments SERVER"} {
		if !slices.Contains(got, want) {
			return fmt.Errorf("no span %q among: %s", want, strings.Join(got, ", "))
		}
	}
	for _, x := range spans {
		if !ids[x.ParentID] {
			return fmt.Errorf("span %s of %s: its parent %q is missing", x.ID, x.Local.ServiceName, x.ParentID)
		}
	}
	return nil
}
