// SPDX-License-Identifier: Apache-2.0

package router

import (
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestTheRouterReadsItsMessage(t *testing.T) {
	var b []byte
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte{8, 1})
	b = protowire.AppendTag(b, fieldSuppressHeaders, protowire.VarintType)
	b = protowire.AppendVarint(b, 1)
	b = protowire.AppendTag(b, fieldStrictHeaders, protowire.BytesType)
	b = protowire.AppendString(b, "x-envoy-max-retries")
	got, err := Spec().Parse(b)
	if want := (&Config{SuppressEnvoyHeaders: true, StrictHeaders: []string{"x-envoy-max-retries"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Spec().Parse(nil); err != nil {
		t.Errorf("the empty message: %v", err)
	}
	if Spec().New != nil {
		t.Error("a marker is never made")
	}
}

func TestUnsupportedFieldsAreNamed(t *testing.T) {
	for num, want := range map[protowire.Number]string{3: "upstream_log", 8: "upstream_http_filters", 77: "field 77"} {
		b := protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), nil)
		if _, err := Spec().Parse(b); err == nil || !strings.Contains(err.Error(), want+": not supported") {
			t.Errorf("got %v, want that %s is not supported", err, want)
		}
	}
	for _, b := range []string{"\xff", "\x0a\x05x", `{"a":1}`} {
		if got, err := Spec().Parse([]byte(b)); err == nil {
			t.Errorf("%q was read as %+v", b, got)
		}
	}
}
