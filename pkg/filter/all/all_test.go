// SPDX-License-Identifier: Apache-2.0

package all

import (
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/tap"
)

func TestEveryFilterIsFoundByItsType(t *testing.T) {
	specs := Specs(tap.NewHub(tap.HubConfig{}))
	r := filter.NewRegistry(specs...)
	for _, s := range specs {
		if r.Lookup(s.TypeURL) == nil || s.Name == "" || s.Parse == nil && s.Build == nil {
			t.Errorf("%+v is not complete", s)
		}
	}
}
