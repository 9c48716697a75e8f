// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// peakEWMAName is of Envoy's contrib, whose messages are not in the API module; from
// version 3 on it is Envoy's own, with the same fields.
const (
	peakEWMAName   = "peak_ewma.v3alpha.PeakEwma"
	peakEWMAName3  = "peak_ewma.v3.PeakEwma"
	defaultDecay   = 10 * time.Second
	defaultRTT     = 10 * time.Millisecond
	defaultPenalty = 1_000_000
)

// peakEWMAType is the message, known by name so that it can be written in files.
var peakEWMAType = knownMessage(peakEWMADescriptor("v3alpha"))

var _ = knownMessage(peakEWMADescriptor("v3"))

func peakEWMADescriptor(version string) *descriptorpb.FileDescriptorProto {
	field := func(name string, number int32, message string) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{
			Name: &name, Number: &number, TypeName: proto.String(".google.protobuf." + message),
			Type:  descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
	}
	return &descriptorpb.FileDescriptorProto{
		Name:       proto.String("outrigger/peak_ewma_" + version + ".proto"),
		Package:    proto.String("envoy.extensions.load_balancing_policies.peak_ewma." + version),
		Syntax:     proto.String("proto3"),
		Dependency: []string{"google/protobuf/duration.proto", "google/protobuf/wrappers.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("PeakEwma"),
			Field: []*descriptorpb.FieldDescriptorProto{
				field("decay_time", 1, "Duration"), field("aggregation_interval", 2, "Duration"),
				field("max_samples_per_host", 3, "UInt32Value"), field("default_rtt", 4, "Duration"),
				field("penalty_value", 5, "DoubleValue"),
			},
		}},
	}
}

// knownMessage makes the first message of the file a known type; a file that is no
// file is a mistake of the program.
func knownMessage(file *descriptorpb.FileDescriptorProto) protoreflect.MessageType {
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	t := dynamicpb.NewMessageType(fd.Messages().Get(0))
	if err := protoregistry.GlobalTypes.RegisterMessage(t); err != nil {
		panic(err)
	}
	return t
}

// peakEWMA reads the policy, whichever version's name it comes by: the fields are
// the same.
func (j *job) peakEWMA(a *anypb.Any, lb *resource.LoadBalancing, p *place) {
	m := peakEWMAType.New()
	j.unpack(a, m.Interface(), p)
	lb.Policy = resource.PeakEWMA
	duration := func(name protoreflect.Name, def time.Duration) time.Duration {
		var d durationpb.Duration
		if !message(m, name, &d) {
			return def
		}
		v := j.duration(&d, def, p.field(string(name)))
		j.only(v <= 0, p.field(string(name)), "must be above 0s")
		return v
	}
	lb.PeakEWMA = resource.LatencyEstimate{
		Decay: duration("decay_time", defaultDecay), DefaultRTT: duration("default_rtt", defaultRTT), Penalty: defaultPenalty,
	}
	var v wrapperspb.DoubleValue
	if message(m, "penalty_value", &v) {
		lb.PeakEWMA.Penalty = v.GetValue()
		j.only(!(v.GetValue() > 0 && v.GetValue() <= 1e12), p.field("penalty_value"), "must be above 0 and at most 1e12")
	}
}

// message copies a field that is a message into to; false if it is not set.
func message(m protoreflect.Message, name protoreflect.Name, to proto.Message) bool {
	f := m.Descriptor().Fields().ByName(name)
	if !m.Has(f) {
		return false
	}
	text, err := proto.Marshal(m.Get(f).Message().Interface())
	return err == nil && proto.Unmarshal(text, to) == nil
}

// untyped is the message that a TypedStruct stands for, where it is a policy: the
// form in which those are written who do not have the message itself.
func untyped(a *anypb.Any) *anypb.Any {
	url, value, ok := typedStruct(a)
	if !ok {
		return a
	}
	t, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if err != nil {
		return a
	}
	m := t.New().Interface()
	if protojson.Unmarshal(value, m) != nil {
		return a
	}
	out := new(anypb.Any)
	if out.Value, err = proto.Marshal(m); err != nil {
		return a
	}
	out.TypeUrl = typeURLPrefix + string(t.Descriptor().FullName())
	return out
}
