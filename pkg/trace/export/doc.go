// SPDX-License-Identifier: Apache-2.0

// Package export sends spans: to Zipkin as version 2 JSON over HTTP, to OTLP
// receivers over gRPC or HTTP, and to the control plane by way of the agent.
//
// A Pool belongs to the process and holds one exporter for each destination,
// whoever configured it. Export copies the span into a bounded queue and
// returns; a goroutine per destination sends batches, tries again with growing
// pauses, and gives up in the end. What a full queue or a failed batch loses is
// counted.
//
// Destinations come from configuration, which may be hostile: link-local and
// cloud metadata addresses are refused when configured and again when dialled,
// redirects are not followed.
package export
