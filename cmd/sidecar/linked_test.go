// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// The tests of pkg/xds/decode import every message themselves; this program has to know
// them too.
func TestEveryMessageThatIsReadIsLinked(t *testing.T) {
	for _, name := range decode.MessagesRead() {
		if _, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name)); err != nil {
			t.Errorf("%s is read and not linked: import it in pkg/xds/decode/linked.go", name)
		}
	}
}
