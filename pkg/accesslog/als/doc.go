// SPDX-License-Identifier: Apache-2.0

// Package als streams access log entries to Envoy's gRPC access log service
// (envoy.service.accesslog.v3.AccessLogService).
//
// A Pool belongs to the process and holds one stream for each log of each
// cluster. Log turns a record into an entry and queues it, in bounded memory; a
// goroutine sends batches by size and age, opens the stream again with growing
// pauses when it ends, and sends what it had not sent. The service acknowledges
// nothing, so that what was on the way when a stream broke may be lost; entries
// that a full queue cannot take are dropped and counted.
package als
