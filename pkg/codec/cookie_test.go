// SPDX-License-Identifier: Apache-2.0

package codec

import "testing"

func TestACookieIsTheFirstOfItsNameInAllFields(t *testing.T) {
	var h Header
	h.Add([]byte("cookie"), []byte(`a=1;  sid="x y"; sid=second; b`))
	h.Add([]byte("other"), []byte("late=no"))
	h.Add([]byte("cookie"), []byte("late=2; empty="))
	for name, want := range map[string]struct {
		value string
		ok    bool
	}{"a": {"1", true}, "sid": {"x y", true}, "late": {"2", true}, "empty": {"", true}, "b": {}, "si": {}, "": {}, "none": {}} {
		if got, ok := h.Cookie(name); string(got) != want.value || ok != want.ok {
			t.Errorf("%q: got %q, %v, want %q, %v", name, got, ok, want.value, want.ok)
		}
	}
}
