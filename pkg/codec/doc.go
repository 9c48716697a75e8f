// SPDX-License-Identifier: Apache-2.0

// Package codec is the vocabulary that the wire codecs and the data path share:
// header lists, message heads, body framing, the events a decoder emits, and the
// rules for names, values, targets and authorities, which every decoder and
// encoder takes from here so that no two of them disagree.
//
// It holds no I/O, no clock and no goroutine, and imports nothing of this
// module. A codec for one protocol lives in a folder below it (http1); what two
// protocols have in common is here.
//
// Ownership: a head and every slice taken from it belong to whoever holds the
// head. A head handed to a Sink is valid until the callback returns; what must
// live longer is copied once, with CopyFrom.
package codec
