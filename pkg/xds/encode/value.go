// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

func number[T int | int64 | uint16 | uint32 | float64](n T) *structpb.Value {
	return structpb.NewNumberValue(float64(n))
}

func millis(d time.Duration) *structpb.Value { return number(d.Milliseconds()) }

func texts(list []string) *structpb.Value {
	values := make([]*structpb.Value, len(list))
	for i, s := range list {
		values[i] = structpb.NewStringValue(s)
	}
	return structpb.NewListValue(&structpb.ListValue{Values: values})
}

func object(fields map[string]*structpb.Value) *structpb.Value {
	return structpb.NewStructValue(&structpb.Struct{Fields: fields})
}

func list(values []*structpb.Value) *structpb.Value {
	return structpb.NewListValue(&structpb.ListValue{Values: values})
}
