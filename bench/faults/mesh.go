// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
)

// meshService is what clients call where the proxy is configured by a control plane: the
// host of their requests.
const meshService = "faults"

// startControlPlane starts the control plane, for the first time or again on what it has
// kept, and waits until it answers.
func (r *rig) startControlPlane(ctx context.Context) (err error) {
	r.plane, err = r.start("controlplane", r.programs.controlplane, "serve", "--http", address(r.planeHTTP), "--xds", address(r.planeXDS),
		"--xds-mtls", "off", "--data", filepath.Join(r.dir, "plane"), "--log-level", "warn")
	if err != nil {
		return err
	}
	return r.await(ctx, r.plane, "http://"+address(r.planeHTTP)+"/v1/status")
}

// register tells the control plane of instance i, with a lease that outlives the run.
func (r *rig) register(ctx context.Context, i int) error {
	body := fmt.Sprintf(`{"address": "127.0.0.1", "port": %d, "leaseSeconds": 3600}`, r.instances[i].port)
	_, err := r.ask(ctx, http.MethodPut, fmt.Sprintf("http://%s/v1/services/%s/instances/%d", address(r.planeHTTP), meshService, i), body)
	return err
}

// deregister takes instance i out, as a deployment does before it ends one.
func (r *rig) deregister(ctx context.Context, i int) error {
	_, err := r.ask(ctx, http.MethodDelete, fmt.Sprintf("http://%s/v1/services/%s/instances/%d", address(r.planeHTTP), meshService, i), "")
	return err
}

// startMesh starts the control plane with all instances, and a proxy that is its client.
func (r *rig) startMesh(ctx context.Context) error {
	if err := r.startControlPlane(ctx); err != nil {
		return err
	}
	for i := range r.instances {
		if err := r.register(ctx, i); err != nil {
			return err
		}
	}
	h, err := r.newHop(r.kind)
	if err != nil {
		return err
	}
	argv := []string{r.programs.sidecar, "--service", "caller", "--controlplane", address(r.planeXDS), "--outbound", address(h.port),
		"--admin", address(h.admin), "--data", h.folder, "--concurrency", "1", "-l", "error"}
	if r.kind == "envoy" {
		config := filepath.Join(h.folder, "bootstrap.json")
		if err := render("mesh.json.tmpl", config, map[string]any{"Admin": h.admin, "Outbound": address(h.port), "Port": r.planeXDS}); err != nil {
			return err
		}
		argv = r.command(h, config)
	}
	if h.process, err = r.start(r.kind, argv...); err != nil {
		return err
	}
	r.hops = []*hop{h}
	return r.awaitHost(ctx, h.process, "http://"+address(h.port)+"/", meshService)
}
