// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	"github.com/outrigger-mesh/outrigger/pkg/filter/all"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// Reload implements dataPlane.
func (d *plane) Reload() (string, error) {
	o := &d.env.Options
	if o.Common() {
		return "nothing to reload: the configuration comes from the control plane, and flags are read at the start", nil
	}
	b, err := loadBootstrap(o, d.env.Node, filter.NewRegistry(all.Specs(d.hub)...))
	if err != nil {
		return "", err
	}
	d.statics.Store(&b.Clusters)
	r := d.client.Reload(b)
	text := fmt.Sprintf("static resources: %d added, %d changed, %d removed", r.Added, r.Changed, r.Removed)
	if len(r.Fixed) > 0 {
		return text, fmt.Errorf("cannot change while the process runs, and stay as they were: %s (restart, or upgrade with SIGUSR2)", strings.Join(r.Fixed, ", "))
	}
	return text, nil
}

// staticClusters are those of the bootstrap in use.
func (d *plane) staticClusters() []*decode.Resource {
	if list := d.statics.Load(); list != nil {
		return *list
	}
	return d.boot.Clusters
}

// reload reads the bootstrap again. Whatever is wrong with it, the last good one stays.
func (s *process) reload() {
	s.log.Info("reloading")
	s.notify.reloading()
	done, err := s.dp.Reload()
	if done != "" {
		s.log.Info("reloaded", "result", done)
	}
	if err != nil {
		s.log.Error("not reloaded, or in part only: the last good configuration stays", "error", err)
	}
	s.notify.ready()
}
