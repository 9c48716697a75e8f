// SPDX-License-Identifier: Apache-2.0

package decode

import (
	udpatypev1 "github.com/cncf/xds/go/udpa/type/v1"
	xdstypev3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// typedStruct opens a TypedStruct: the type it stands for and its value as JSON.
func typedStruct(a *anypb.Any) (url string, value []byte, ok bool) {
	var v *structpb.Struct
	switch a.GetTypeUrl() {
	case typedStructURL:
		var m xdstypev3.TypedStruct
		if proto.Unmarshal(a.GetValue(), &m) != nil {
			return "", nil, false
		}
		url, v = m.GetTypeUrl(), m.GetValue()
	case oldTypedStructURL:
		var m udpatypev1.TypedStruct
		if proto.Unmarshal(a.GetValue(), &m) != nil {
			return "", nil, false
		}
		url, v = m.GetTypeUrl(), m.GetValue()
	default:
		return "", nil, false
	}
	if v == nil {
		v = &structpb.Struct{}
	}
	text, err := v.MarshalJSON()
	return url, text, err == nil
}
