// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"os"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

func TestMain(m *testing.M) { os.Exit(mesh.Main(m)) }
