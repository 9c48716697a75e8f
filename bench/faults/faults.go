// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"time"
)

// fault is a row of the table.
type fault struct {
	name string
	what string
	// bar says that no request may be lost through the sidecar.
	bar bool
	// hopeless: for a while there is nothing that could answer.
	hopeless bool
	// toxic: the first instance is behind toxiproxy.
	toxic bool
	// mesh: the proxy is a client of the control plane, in place of files.
	mesh bool
	// named: the proxy looks the instances' names up.
	named bool
	// hops are the proxies in a row; 0: one.
	hops int
	// amplifies: what counts is how many calls come to the instances for each request.
	amplifies bool
	// slow and idle are connections beside the busy ones.
	slow, idle int
	// cause breaks something. Where mend is nil, cause takes its own time.
	cause func(context.Context, *rig, *options) error
	mend  func(context.Context, *rig, *options) error
}

// faults is every fault, in the order of the table.
var faults = []fault{
	{
		name: "killed", what: "one instance of four is killed, and started again",
		cause: func(_ context.Context, r *rig, _ *options) error { r.instances[0].kill(); return nil },
		mend:  func(ctx context.Context, r *rig, _ *options) error { return r.startInstance(ctx, 0) },
	},
	{
		name: "hung", what: "one instance is stopped (SIGSTOP), and goes on",
		cause: func(_ context.Context, r *rig, _ *options) error { return r.instances[0].signal(syscall.SIGSTOP) },
		mend:  func(_ context.Context, r *rig, _ *options) error { return r.instances[0].signal(syscall.SIGCONT) },
	},
	{
		name: "errors", what: "one instance answers half of its requests with 500",
		cause: func(ctx context.Context, r *rig, _ *options) error { return r.tell(ctx, 0, 50, 0) },
		mend:  func(ctx context.Context, r *rig, _ *options) error { return r.tell(ctx, 0, 0, 0) },
	},
	{
		name: "slow", what: "one instance takes 2 s for every answer",
		cause: func(ctx context.Context, r *rig, _ *options) error { return r.tell(ctx, 0, 0, 2*time.Second) },
		mend:  func(ctx context.Context, r *rig, _ *options) error { return r.tell(ctx, 0, 0, 0) },
	},
	{
		name: "readers", what: "twenty clients read answers of 8 MiB at 50 kB/s", bar: true, slow: 20,
		cause: func(context.Context, *rig, *options) error { return nil },
		mend:  func(context.Context, *rig, *options) error { return nil },
	},
	{
		name: "resets", what: "toxiproxy resets half of one instance's connections after 50 ms", toxic: true,
		cause: func(ctx context.Context, r *rig, _ *options) error {
			return r.toxics(ctx, http.MethodPost, "/proxies/first/toxics",
				`{"name":"resets","type":"reset_peer","stream":"downstream","toxicity":0.5,"attributes":{"timeout":50}}`)
		},
		mend: func(ctx context.Context, r *rig, _ *options) error {
			return r.toxics(ctx, http.MethodDelete, "/proxies/first/toxics/resets", "")
		},
	},
	{
		name: "zone", what: "half of the instances, those of one zone, are killed, and started again",
		cause: func(_ context.Context, r *rig, _ *options) error {
			for _, m := range r.instances[perZone:] {
				m.kill()
			}
			return nil
		},
		mend: func(ctx context.Context, r *rig, _ *options) error { return r.startInstances(ctx, perZone) },
	},
	{
		name: "all", what: "all instances are killed, and started again", hopeless: true,
		cause: func(_ context.Context, r *rig, _ *options) error {
			for _, m := range r.instances {
				m.kill()
			}
			return nil
		},
		mend: func(ctx context.Context, r *rig, _ *options) error { return r.startInstances(ctx, 0) },
	},
	{
		name: "redeploy", what: "every instance in turn is asked to end (SIGTERM), and started again", bar: true,
		cause: redeploy,
	},
	{
		name: "reloads", what: "the listener's configuration changes again and again, 40 connections idle all through", bar: true, idle: 40,
		cause: reloads,
	},
	{
		name: "upgrades", what: "the proxy is replaced in place again and again, 40 connections idle all through", bar: true, idle: 40,
		cause: func(ctx context.Context, r *rig, o *options) error {
			for range o.repeats {
				if err := errors.Join(r.upgrade(ctx), wait(ctx, betweenChanges)); err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		name: "chain", what: "every instance behind three proxies in a row answers 500 to everything", hops: 3, amplifies: true, hopeless: true,
		cause: func(ctx context.Context, r *rig, _ *options) error { return r.tellAll(ctx, 100) },
		mend:  func(ctx context.Context, r *rig, _ *options) error { return r.tellAll(ctx, 0) },
	},
	{
		name: "dns", what: "the DNS server that endpoints are found by ends, one instance is killed meanwhile, and both come back", named: true,
		cause: func(_ context.Context, r *rig, _ *options) error {
			r.names.Close()
			r.instances[0].kill()
			return nil
		},
		mend: func(ctx context.Context, r *rig, _ *options) error {
			return errors.Join(r.startNames(r.names.Addr().String()), r.startInstance(ctx, 0))
		},
	},
	{
		name: "controlplane", what: "the control plane is killed, one instance ends meanwhile, and both are started again", bar: true, mesh: true,
		cause: func(_ context.Context, r *rig, _ *options) error {
			r.plane.kill()
			r.instances[0].kill()
			return nil
		},
		mend: func(ctx context.Context, r *rig, _ *options) error {
			return errors.Join(r.startControlPlane(ctx), r.startInstance(ctx, 0))
		},
	},
	{
		name: "rollout", what: "every instance in turn is taken out of the registry, asked to end, and comes back", bar: true, mesh: true,
		cause: rollout,
	},
}

func faultNames() []string {
	var names []string
	for i := range faults {
		names = append(names, faults[i].name)
	}
	return names
}

// startInstances starts those from the one with the number on again.
func (r *rig) startInstances(ctx context.Context, from int) error {
	for i := from; i < len(r.instances); i++ {
		if err := r.startInstance(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) tellAll(ctx context.Context, percent int) error {
	for i := range r.instances {
		if err := r.tell(ctx, i, percent, 0); err != nil {
			return err
		}
	}
	return nil
}

func redeploy(ctx context.Context, r *rig, _ *options) error {
	for i, m := range r.instances {
		if err := m.signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-m.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := r.startInstance(ctx, i); err != nil {
			return err
		}
		if err := wait(ctx, betweenChanges); err != nil {
			return err
		}
	}
	return nil
}

// rollout does what a deployment does, in a hurry: an instance is asked to end as soon as
// it is taken out, whether the proxies know of it yet or not.
func rollout(ctx context.Context, r *rig, _ *options) error {
	for i, m := range r.instances {
		if err := r.deregister(ctx, i); err != nil {
			return err
		}
		if err := m.signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-m.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := errors.Join(r.startInstance(ctx, i), r.register(ctx, i), wait(ctx, betweenChanges)); err != nil {
			return err
		}
	}
	return nil
}

// betweenChanges is how long the load goes on between two changes in a row: every busy
// connection sends some requests in it.
const betweenChanges = 300 * time.Millisecond

func reloads(ctx context.Context, r *rig, o *options) error {
	for range o.repeats {
		if err := r.reload(ctx); err != nil {
			return err
		}
		if err := wait(ctx, betweenChanges); err != nil {
			return err
		}
	}
	return nil
}
