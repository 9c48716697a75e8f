// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"strings"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// upgradeConfig is an entry of upgrade_configs, of a manager or of a route.
type upgradeConfig interface {
	GetUpgradeType() string
	GetEnabled() *wrapperspb.BoolValue
}

// upgrade adds an entry to the list, whatever is wrong with it. HTTP/2 is no
// protocol to switch to: behind such a tunnel requests would pass that no route
// and no filter has seen.
func (j *job) upgrade(list []resource.Upgrade, m upgradeConfig, p *place) []resource.Upgrade {
	u := resource.Upgrade{Type: j.intern(lower(m.GetUpgradeType())), Enabled: boolOr(m.GetEnabled(), true)}
	at := p.field("upgrade_type")
	switch u.Type {
	case "h2c", "h2", "http", "tls":
		j.fail(at, "%q is never switched to", clip(m.GetUpgradeType(), 100))
	case "connect-udp":
		j.fail(at, notSupported)
	default:
		name, version, _ := strings.Cut(u.Type, "/")
		j.only(name == "" || !validHeaderName(name+version), at, "is no protocol name")
	}
	for i := range list {
		j.only(list[i].Type == u.Type, at, "is given twice")
	}
	return append(list, u)
}
