// SPDX-License-Identifier: Apache-2.0

package resource

import "github.com/outrigger-mesh/outrigger/pkg/substitution"

// Format is a parsed format string with substitution commands.
type Format = substitution.Format
