// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"net/netip"
	"strings"
)

// Limits of a registration.
const (
	MaxMetadataEntries = 64
	MaxMetadataBytes   = 8 << 10 // keys and values together
	MaxInstanceWeight  = 65535
)

// Check reports every field of a registration that cannot be.
func (i *Instance) Check() Errors {
	var f faults
	if !ValidServiceName(i.Service) {
		f.add("service", "want a DNS name of lower-case letters, digits, hyphens and dots, got %q", clip(i.Service))
	}
	if ownHost(i.Service) && i.Service != "" {
		f.add("service", "localhost and addresses cannot name a service, got %q", clip(i.Service))
	}
	if i.ID == "" || len(i.ID) > 253 || strings.ContainsFunc(i.ID, notInID) {
		f.add("id", "want up to 253 letters, digits and . _ : ~ - @ [ ], got %q", clip(i.ID))
	}
	if strings.HasPrefix(i.ID, staticPrefix) {
		f.add("id", "%s is kept for addresses that a Service object lists", staticPrefix)
	}
	addr, err := netip.ParseAddr(i.Address)
	switch {
	case err != nil:
		f.add("address", "want an IP address, got %q", clip(i.Address))
	case !UsableAddress(addr):
		f.add("address", "%s cannot be an instance: unspecified, multicast and link-local addresses are refused", addr)
	}
	if i.Port == 0 {
		f.add("port", "want a port from 1 to 65535")
	}
	switch i.Protocol {
	case "", ProtocolHTTP, ProtocolHTTP2, ProtocolGRPC, ProtocolTCP, ProtocolTLS:
	default:
		f.add("protocol", "want http, http2, grpc, tcp or tls, got %q", clip(i.Protocol))
	}
	if i.Weight > MaxInstanceWeight {
		f.add("weight", "want at most %d, got %d", MaxInstanceWeight, i.Weight)
	}
	for _, s := range []struct{ path, value string }{{"zone", i.Zone}, {"region", i.Region}, {"version", i.Version}, {"node", i.Node}} {
		if len(s.value) > 253 || strings.ContainsFunc(s.value, control) {
			f.add(s.path, "want up to 253 bytes without control characters")
		}
	}
	i.checkMetadata(&f)
	return f.list
}

func (i *Instance) checkMetadata(f *faults) {
	if len(i.Metadata) > MaxMetadataEntries {
		f.add("metadata", "has %d entries, the limit is %d", len(i.Metadata), MaxMetadataEntries)
		return
	}
	total := 0
	for k, v := range i.Metadata {
		total += len(k) + len(v)
		if k == "" || strings.ContainsFunc(k, control) || strings.ContainsFunc(v, control) {
			f.add("metadata", "key %q is empty or it or its value has control characters", clip(k))
		}
	}
	if total > MaxMetadataBytes {
		f.add("metadata", "is %d bytes, the limit is %d", total, MaxMetadataBytes)
	}
}

func control(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }

func notInID(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && !strings.ContainsRune("._:~-@[]", r)
}
