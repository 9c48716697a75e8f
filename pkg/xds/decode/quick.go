// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"runtime"
	"slices"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
)

// largeFile is a size from which on a collection costs less than what it saves.
const largeFile = 256 << 10

// quickBootstrap decodes a bootstrap that is written plainly and right, in a
// fraction of the time and memory that the way with positions takes: there is
// never more than one cluster as a message. It returns nil for all others.
func quickBootstrap(data []byte, file string, reg *filter.Registry) *BootstrapConfig {
	raw, ok := toWire(data, (*bootstrapv3.Bootstrap)(nil).ProtoReflect().Descriptor())
	if !ok {
		return nil
	}
	raw = slices.Clip(append([]byte(nil), raw...))
	if len(data) > largeFile {
		// The tree of the document is garbage. While it counts as heap, clusters that
		// stay would be strewn over all the messages that do not.
		runtime.GC()
	}
	rest, clusters, ok := splitBootstrap(raw)
	var m bootstrapv3.Bootstrap
	if !ok || proto.Unmarshal(rest, &m) != nil {
		return nil
	}
	j := NewDecoder(reg).job(0, "")
	b := &BootstrapConfig{File: file, Raw: raw}
	j.check(&m, nil)
	j.bootstrap(&m, func(yield func(int, *clusterv3.Cluster) bool) {
		for i, c := range clusters {
			var m clusterv3.Cluster
			if len(j.fields) > 0 {
				return
			}
			if err := proto.Unmarshal(c, &m); err != nil {
				j.fail(nil, "%v", cleanError(err))
				return
			}
			j.check(&m, nil)
			if !yield(i, &m) {
				return
			}
		}
	}, b)
	if len(j.fields) > 0 {
		return nil
	}
	return b
}

// splitBootstrap takes static_resources.clusters out of the bytes of a bootstrap.
func splitBootstrap(raw []byte) (rest []byte, clusters [][]byte, ok bool) {
	statics := field(&bootstrapv3.Bootstrap{}, "static_resources")
	list := field(&bootstrapv3.Bootstrap_StaticResources{}, "clusters")
	ok = eachField(raw, func(n protowire.Number, whole, value []byte) bool {
		if n != statics {
			rest = append(rest, whole...)
			return true
		}
		var others []byte
		if !eachField(value, func(n protowire.Number, whole, value []byte) bool {
			if n == list {
				clusters = append(clusters, value)
			} else {
				others = append(others, whole...)
			}
			return true
		}) {
			return false
		}
		rest = protowire.AppendTag(rest, statics, protowire.BytesType)
		rest = protowire.AppendBytes(rest, others)
		return true
	})
	return rest, clusters, ok
}

// field is the number of a field.
func field(m proto.Message, name string) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByTextName(name).Number()
}

// eachField calls f with each field of a message: all its bytes, and the content
// of those that have a length.
func eachField(raw []byte, f func(n protowire.Number, whole, value []byte) bool) bool {
	for len(raw) > 0 {
		n, t, tag := protowire.ConsumeTag(raw)
		if tag < 0 {
			return false
		}
		size := protowire.ConsumeFieldValue(n, t, raw[tag:])
		if size < 0 {
			return false
		}
		var value []byte
		if t == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(raw[tag:])
		}
		if !f(n, raw[:tag+size], value) {
			return false
		}
		raw = raw[tag+size:]
	}
	return true
}
