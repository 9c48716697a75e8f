// SPDX-License-Identifier: Apache-2.0

// Package proxyproto reads and writes the PROXY protocol, versions 1 and 2, by
// which a proxy in front tells whom a connection is from
// (https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt).
//
// Lengths are strict: a header that does not say exactly where it ends, a TLV that
// reaches beyond it, an address in another than its canonical form are errors,
// after which the connection must be closed. A checksum that is there is checked.
//
// Parse is a pure function of the bytes so far and gives the same answer however
// they are cut. Nothing is allocated. Whom to believe is the caller's decision.
package proxyproto
