// SPDX-License-Identifier: Apache-2.0

package intercept

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// capNetAdmin is CAP_NET_ADMIN's bit (capabilities(7)).
const capNetAdmin = 12

// CheckPrivileges says what is missing to change rules, and what to do about it.
func CheckPrivileges() error {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return nil // the tool itself will tell
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		hex, ok := strings.CutPrefix(s.Text(), "CapEff:")
		if !ok {
			continue
		}
		caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil || caps&(1<<capNetAdmin) != 0 {
			return nil
		}
		return fmt.Errorf("%w: the capability NET_ADMIN is missing (user id %d): run it as root; in a container give it to the init container alone: "+
			"docker run --cap-add NET_ADMIN, or cap_add: [NET_ADMIN] in a compose file. --dry-run needs none", ErrPrivilege, os.Geteuid())
	}
	return nil
}
