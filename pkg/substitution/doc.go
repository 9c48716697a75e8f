// SPDX-License-Identifier: Apache-2.0

// Package substitution parses the format strings of access logs and header
// values: text with commands such as %REQ(X?Y):Z% (Envoy's command operators).
//
// It parses and nothing else: the access log evaluates commands over a finished
// record, the data path over a running exchange.
package substitution
