// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestCertificatesThatAreIssuedWhileRootsRollOverAreTrusted issues from several
// goroutines while roots come and go: whenever a certificate is looked at, until its
// end, the bundle of that moment accepts it.
func TestCertificatesThatAreIssuedWhileRootsRollOverAreTrusted(t *testing.T) {
	m := newMemory(t, nil)
	var now atomic.Int64 // nanoseconds after start
	at := func() time.Time { return start.Add(time.Duration(now.Load())) }
	stop := make(chan struct{})
	var issuing sync.WaitGroup
	for range 3 {
		key := newKey(t)
		issuing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				issued, err := m.Issue(at(), &key.PublicKey, ServiceID(domain, "orders"))
				if err != nil {
					t.Error(err)
					return
				}
				chain, err := DecodeCertificates(EncodeCertificates(issued.Chain...))
				if err != nil {
					t.Error(err)
					return
				}
				b := m.Bundle()
				if seen := at(); seen.After(issued.NotAfter) {
					continue // the clock has gone on since, and the root may have left
				}
				for _, b := range []*Bundle{issued.Bundle, b} {
					if _, err := VerifyPeer(issued.NotAfter, chain, b.Pool, domain); err != nil {
						t.Errorf("at %v: %v", at().Sub(start), err)
						return
					}
				}
			}
		})
	}
	for range 60 {
		if !strings.Contains(m.phases(), string(Announced)) {
			if err := m.Rotate(at(), 0); err != nil {
				t.Fatal(err)
			}
		}
		now.Add(int64(6 * time.Hour))
		if _, err := m.Step(at()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	issuing.Wait()
	if n := len(m.Bundle().Roots); n > 4 {
		t.Errorf("%d roots: the old ones do not leave", n)
	}
}
