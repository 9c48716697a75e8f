// SPDX-License-Identifier: Apache-2.0

// Package files reads the configuration folder and watches it.
//
// One goroutine reads the whole folder after any sign of change: an event of the
// file system, an overflow of its queue, or the slow poll that is there in case
// events do not come (network file systems, a replaced folder). Contents are
// compared by hash, so a touch, or an editor's three events for one save, change
// nothing. Symbolic links are followed when reading, which covers folders whose
// content is swapped by re-pointing a link.
//
// A file that cannot be read or parsed is handed on with its errors: whoever
// consumes it keeps what the file held before.
package files
