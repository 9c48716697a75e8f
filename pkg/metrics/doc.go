// SPDX-License-Identifier: Apache-2.0

// Package metrics is how numbers are kept and shown: loop-owned histograms that
// merge exactly, samples under Envoy's stat names, and the text form that
// Prometheus reads.
//
// Who counts what is not here: counters are plain fields of their owner, read
// on its loop, and handed over as a list of samples. Samples are values; nobody
// writes to one, or to its scope, once it was handed over.
package metrics
