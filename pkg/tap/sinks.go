// SPDX-License-Identifier: Apache-2.0

package tap

// sinks are the kinds of sinks by the key that configuration uses.
var sinks = map[string]sinkKind{
	"lake": lakeSink,
	"file": fileSink,
}
