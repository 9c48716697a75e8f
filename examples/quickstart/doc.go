// SPDX-License-Identifier: Apache-2.0

// Command quickstart shows Outrigger at work in half a minute, with real processes
// on this host: it builds `sidecar` and `controlplane`, starts a control plane and
// three small services (web → orders → payments, payments in two instances and
// versions) with a sidecar each, sends a steady load through them, and proves as
// it goes what the mesh does: balancing, an instance killed and nothing lost, a
// circuit that opens and closes, a trace, tapped traffic in the lake, and a policy
// that is live at once.
//
//	go run ./examples/quickstart            until Ctrl-C
//	go run ./examples/quickstart -for 30s   exits 0 only if all of it was seen
//
// Nothing is pretended: what is reported was observed from outside, by requests,
// by the admin port of a sidecar, by the control plane's API or in its files.
// It belongs to no package of the product; the product's own tests are elsewhere.
//
// One goroutine tells the story, one starts the processes (pdeathsig is tied to the
// thread that starts them), one waits for each process, and a few send the load;
// all end, and are waited for, before the folder is removed.
package main
