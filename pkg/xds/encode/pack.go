// SPDX-License-Identifier: Apache-2.0

package encode

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// validator is what the API's generated messages have.
type validator interface{ ValidateAll() error }

// Validate checks a message against the constraints that the API declares, and
// names every field that breaks one. It does not look into packed messages:
// those were checked when they were packed.
func Validate(m proto.Message) error {
	v, ok := m.(validator)
	if !ok {
		return nil
	}
	err := v.ValidateAll()
	if err == nil {
		return nil
	}
	var lines []string
	fieldErrors(err, "", &lines)
	return errors.New(strings.Join(lines, "; "))
}

// fieldErrors flattens nested constraint errors into "field.path: reason".
func fieldErrors(err error, path string, out *[]string) {
	if many, ok := err.(interface{ AllErrors() []error }); ok {
		for _, e := range many.AllErrors() {
			fieldErrors(e, path, out)
		}
		return
	}
	one, ok := err.(interface {
		Field() string
		Reason() string
		Cause() error
	})
	if !ok {
		*out = append(*out, strings.TrimPrefix(path+": "+err.Error(), ": "))
		return
	}
	at := strings.TrimPrefix(path+"."+one.Field(), ".")
	if one.Cause() != nil {
		fieldErrors(one.Cause(), at, out)
		return
	}
	*out = append(*out, at+": "+one.Reason())
}

// pack validates and packs a message.
func pack(m proto.Message) (*anypb.Any, error) {
	name := m.ProtoReflect().Descriptor().Name()
	if err := Validate(m); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: value}, nil
}

// ads says that a resource comes over the stream that named it.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func seconds(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func u32(v uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(v) }

// or is *v, or the default.
func or[T any](v *T, fallback T) T {
	if v == nil {
		return fallback
	}
	return *v
}
