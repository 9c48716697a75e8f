// SPDX-License-Identifier: Apache-2.0

package client

import (
	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Asked is a listener that this process asks its control plane for, such as by a flag.
// Dump shows all of them, also those that there are not, and by what they were asked for.
type Asked struct {
	Name string
	By   string // what asks for it, for people
	// Missing says why there may be none, for people.
	Missing string
}

// The place of Asked.By in what Dump shows of a listener: it is not as received.
const (
	askedNamespace = "io.outrigger"
	askedKey       = "askedForBy"
)

// showAsked marks the listeners that were asked for, and adds those that are not there.
func showAsked(m *adminv3.ListenersConfigDump, asked []Asked) {
	for i := range asked {
		a := &asked[i]
		found := false
		for _, l := range m.DynamicListeners {
			if l.Name != a.Name {
				continue
			}
			found = true
			for _, state := range []*adminv3.ListenersConfigDump_DynamicListenerState{l.ActiveState, l.WarmingState} {
				if state != nil {
					state.Listener = markedAny(state.Listener, a.By)
				}
			}
		}
		if !found {
			m.DynamicListeners = append(m.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{
				Name: a.Name, ClientStatus: adminv3.ClientResourceStatus_DOES_NOT_EXIST,
				ErrorState: &adminv3.UpdateFailureState{Details: a.By + ": " + a.Missing},
			})
		}
	}
}

// markedAny is a listener with what asks for it; what is none is returned as it is.
func markedAny(a *anypb.Any, by string) *anypb.Any {
	var l listenerv3.Listener
	if a.UnmarshalTo(&l) != nil {
		return a
	}
	if l.Metadata == nil {
		l.Metadata = &corev3.Metadata{}
	}
	if l.Metadata.FilterMetadata == nil {
		l.Metadata.FilterMetadata = map[string]*structpb.Struct{}
	}
	own := l.Metadata.FilterMetadata[askedNamespace]
	if own.GetFields() == nil {
		own = &structpb.Struct{Fields: map[string]*structpb.Value{}}
		l.Metadata.FilterMetadata[askedNamespace] = own
	}
	own.Fields[askedKey] = structpb.NewStringValue(by)
	out, err := anypb.New(&l)
	if err != nil {
		return a
	}
	return out
}
