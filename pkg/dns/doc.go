// SPDX-License-Identifier: Apache-2.0

// Package dns answers an application's queries for names of the mesh with virtual
// addresses, and forwards all others to the host's resolvers.
//
// An application that resolves a name before it connects needs some address, so
// that it connects at all; interception then leads the connection to the sidecar,
// which routes by what the request says. A virtual address belongs to one name, and
// stays with it over restarts (Addresses). Nobody else has it: the ranges are
// reserved ones.
//
// Server serves UDP and TCP on loopback only, so that nobody else can use it to
// amplify. Queries that are forwarded are bounded in number and time; each has a
// socket, and so a port, and an id of its own, and an answer counts only with the
// id and the question that were asked.
//
// What does not belong here: discovery. Names says which names are the mesh's.
package dns
