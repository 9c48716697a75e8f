// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// An application that knows HTTP/1.1 alone is called by clients that speak HTTP/2.
func TestACallerOfHTTP2ReachesAnApplicationOfHTTP1(t *testing.T) {
	m := mesh.New(t)
	m.Instance("orders", "orders-1") // its server takes no HTTP/2 in the clear
	web := m.Caller("web-1")
	m.AwaitAnswers(web, "orders", "orders-1")
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
	for range 30 {
		q, err := http.NewRequest(http.MethodGet, "http://"+web.Outbound+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Host = "orders"
		a, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(a.Body)
		_ = a.Body.Close()
		if err != nil || a.StatusCode != http.StatusOK || a.ProtoMajor != 2 {
			t.Fatalf("answered %s over %s: %q, %v", a.Status, a.Proto, b, err)
		}
	}
}
