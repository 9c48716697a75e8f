// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

// A session of one subset would lead a request for another one out of it if both had the
// same text.
func TestDifferentLabelsHaveDifferentTexts(t *testing.T) {
	if got, want := mesh.LabelText(map[string]string{"version": "v1", "a": "b c"}), "a=b c, version=v1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	seen := map[string]map[string]string{}
	for _, labels := range []map[string]string{
		{"a": "b", "c": "d"}, {"a": "b, c=d"}, {"a": `b", c="d`}, {"a=b, c": "d"}, {"a": `"b"`}, {"a": "b"}, {"a": `\"b\"`}, {"a": ""}, {"a": `""`},
	} {
		text := mesh.LabelText(labels)
		if other, twice := seen[text]; twice {
			t.Errorf("%v and %v are both %s", labels, other, text)
		}
		seen[text] = labels
	}
}
