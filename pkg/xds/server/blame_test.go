// SPDX-License-Identifier: Apache-2.0

package server

import (
	"slices"
	"testing"
)

func TestARefusalBlamesOnlyWhatItNames(t *testing.T) {
	versions := map[string]string{"outbound|pay": "1", "outbound|payments": "1", "web": "1"}
	for reason, want := range map[string][]string{
		`cluster "outbound|payments": lb_policy: unsupported`: {"outbound|payments"},
		"Error adding/updating cluster(s) outbound|pay: bad":  {"outbound|pay"},
		"outbound|pay: bad, outbound|payments: bad":           {"outbound|pay", "outbound|payments"},
		"nothing is named": {"outbound|pay", "outbound|payments", "web"},
		"webhook failed":   {"outbound|pay", "outbound|payments", "web"},
	} {
		if got := blamed(versions, reason); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", reason, got, want)
		}
	}
}
