// SPDX-License-Identifier: Apache-2.0

// Package sidecarv1 is the wire contract between a sidecar and its control
// plane for everything that is not xDS: registration, lease, health, tap and
// span upload. The .proto file is the contract and carries its documentation;
// the Go code is generated from it by scripts/generate.sh.
//
// The server is pkg/controlplane/sidecarservice, the client pkg/agent.
package sidecarv1
