// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// nested is messages within each other, in the fields of these numbers from the
// inside out, over and over, until they have so many bytes.
func nested(size int, numbers ...protowire.Number) []byte {
	b := make([]byte, size)
	at, depth := size, 0 // made from the end
	for at > 16 {
		tag := protowire.AppendTag(nil, numbers[len(numbers)-1-depth%len(numbers)], protowire.BytesType)
		tag = protowire.AppendVarint(tag, uint64(size-at))
		at -= len(tag)
		copy(b[at:], tag)
		depth++
	}
	return b[at:]
}

// The stack grows with the depth as the heap does, and is doubled by copying.
func TestAResourceOfAMillionLevelsCostsNoMoreThanAFlatOne(t *testing.T) {
	metadata := func(in []byte) []byte { // Cluster.metadata, filter_metadata, its value
		for _, number := range []protowire.Number{2, 1, 25} {
			in = protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), in)
		}
		return in
	}
	// Struct.fields, its value, Value.struct_value
	deep := &anypb.Any{TypeUrl: types[Cluster].URL, Value: metadata(nested(MaxResourceBytes-64, 1, 2, 5))}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := NewDecoder(nil).Decode(Cluster, "", deep)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "recursion") {
		t.Fatalf("want a refusal of the depth, got %.300v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 4*MaxResourceBytes {
		t.Errorf("%d bytes were allocated for a resource of %d", took, MaxResourceBytes)
	}
}
