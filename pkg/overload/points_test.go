// SPDX-License-Identifier: Apache-2.0

package overload

import (
	"reflect"
	"testing"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestLoadShedPointsFollowThePressure(t *testing.T) {
	m := New(resource.Overload{
		Monitors: []resource.OverloadMonitor{{Name: "m", Max: 100}},
		Points: []resource.LoadShedPoint{
			{Kind: resource.ShedAccept, Triggers: []resource.OverloadTrigger{{Monitor: "m", From: 0.9, To: 0.9}}},
			{Kind: resource.ShedUpstream, Triggers: []resource.OverloadTrigger{{Monitor: "m", From: 0.5, To: 1}}},
		},
	})
	for _, tt := range []struct {
		used             float64
		accept, upstream uint8
		changed          bool
	}{
		{10, 0, 0, false}, {75, 0, 50, true}, {75, 0, 50, false}, {90, 100, 80, true}, {200, 100, 100, true}, {0, 0, 0, true},
	} {
		changed := m.Update(func(int, *resource.OverloadMonitor) (float64, error) { return tt.used, nil })
		p := m.Points()
		if p.Scale(resource.ShedAccept) != tt.accept || p.Scale(resource.ShedUpstream) != tt.upstream || changed != tt.changed || m.State() != 0 {
			t.Errorf("at %v: %d %d, changed %v, state %x", tt.used, p.Scale(resource.ShedAccept), p.Scale(resource.ShedUpstream), changed, m.State())
		}
	}
	half := Points(50) << (8 * resource.ShedUpstream)
	shed := 0
	for r := range uint64(1000) {
		if m.Sheds(half, resource.ShedUpstream, r) {
			shed++
		}
		if m.Sheds(half, resource.ShedAccept, r) {
			t.Fatal("another point sheds")
		}
	}
	want := []Point{{resource.ShedAccept, 0, 0}, {resource.ShedUpstream, 0, 500}}
	if got := m.PointList(); shed != 500 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d were shed, the list is %v", shed, got)
	}
}

func TestLoadShedPointsAreFoundByTheirNames(t *testing.T) {
	for k := range resource.LoadShedPoints {
		if got, ok := resource.LoadShedPointByName(k.String()); !ok || got != k {
			t.Errorf("%s is %v, %v", k, got, ok)
		}
	}
}
