// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// A file that claims a record larger than itself is an error, and no memory is
// taken for it, checksum or not.
func TestALastGoodCopyThatClaimsMoreThanItHoldsIsRefused(t *testing.T) {
	for _, claim := range []uint64{2, 1 << 30, 1 << 40, 1<<63 - 1, 1<<64 - 1} {
		body := protowire.AppendVarint(nil, claim)
		sum := sha256.Sum256(body)
		file := append([]byte(lastGoodMagic+hex.EncodeToString(sum[:])+"\n"), body...)
		c := &Client{}
		if list, err := c.decodeLastGood(file); err == nil {
			t.Errorf("a record of %d bytes in a file of %d: %d entries", claim, len(file), len(list))
		}
	}
}
