// SPDX-License-Identifier: Apache-2.0

package rest

import "testing"

// Pages of one model are reviewed by one index.
func TestPagesOfOneModelShareTheirReview(t *testing.T) {
	a := newAPI(t, nil)
	for _, name := range []string{"a", "b"} {
		a.want(a.do("PUT", "/v1/objects/Service/"+name, `{"apiVersion":"outrigger.io/v1","kind":"Service","metadata":{"name":"`+name+`"},"spec":{"ports":[{"port":80}]}}`), 201)
	}
	a.want(a.do("GET", "/v1/objects?limit=1", ""), 200)
	x := a.server.reviews.Load()
	if a.want(a.do("GET", "/v1/status", ""), 200); x == nil || a.server.reviews.Load() != x {
		t.Error("the same model was indexed again")
	}
	a.want(a.do("DELETE", "/v1/objects/Service/b", ""), 200)
	if a.want(a.do("GET", "/v1/objects", ""), 200, `"name":"a"`); a.server.reviews.Load() == x {
		t.Error("a newer model was not indexed")
	}
}
