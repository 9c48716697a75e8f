// SPDX-License-Identifier: Apache-2.0

package export

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// zipkinURL is the address of a real server, which whoever runs the test has
// started for it.
func zipkinURL(t *testing.T) string {
	t.Helper()
	url := os.Getenv("ZIPKIN_EXPORT_URL")
	if os.Getenv("OUTRIGGER_PEERS") == "" || url == "" {
		t.Skip("needs a real peer: set OUTRIGGER_PEERS=1 and ZIPKIN_EXPORT_URL")
	}
	return strings.TrimSuffix(url, "/")
}

func TestARealZipkinShowsTheSpan(t *testing.T) {
	url := zipkinURL(t)
	p := NewPool(Config{})
	x := open(t, p, resource.TraceExporter{ZipkinURL: url + "/api/v2/spans"})
	s := exampleSpan()
	s.Start = time.Now().UnixNano()
	for i := range s.TraceID {
		s.TraceID[i] = byte(rand.Uint32())
	}
	x.Export(s)
	closePool(t, p)
	var got []map[string]any
	eventually(t, "the trace is found", func() bool {
		resp, err := http.Get(url + "/api/v2/trace/" + hex.EncodeToString(s.TraceID[:]))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == 200 && json.NewDecoder(resp.Body).Decode(&got) == nil && len(got) == 1
	})
	http.DefaultClient.CloseIdleConnections()
	if got[0]["name"] != "get orders" || got[0]["kind"] != "CLIENT" || got[0]["duration"] != float64(1234) {
		t.Errorf("got %v", got[0])
	}
}
