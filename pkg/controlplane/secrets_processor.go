// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/xds/encode"
)

// secrets makes what routes name of it: the keys of sessions, where there are sessions.
func secrets(in input) []recipe {
	if in.group.Kind != KindMesh || in.sessionKeys == "" || !in.index.Model.HasSessions() {
		return nil
	}
	return []recipe{{encode.SessionKeysSecret, []any{in.sessionKeys}, func() (proto.Message, []encode.Problem, error) {
		return encode.SessionKeys([]byte(in.sessionKeys)), nil, nil
	}}}
}
