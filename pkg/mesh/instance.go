// SPDX-License-Identifier: Apache-2.0

package mesh

import "errors"

var errUnknownHealth = errors.New("want one of unknown, healthy, unhealthy, draining")

// Health is what the registry knows of an instance.
type Health uint8

// The health states. Unknown counts as healthy until a check says otherwise.
const (
	HealthUnknown Health = iota
	HealthHealthy
	HealthUnhealthy
	// HealthDraining takes no new requests; running ones end.
	HealthDraining
)

var healthNames = [...]string{"unknown", "healthy", "unhealthy", "draining"}

func (h Health) String() string {
	if int(h) < len(healthNames) {
		return healthNames[h]
	}
	return "invalid"
}

// MarshalText writes the state's name.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads the state's name.
func (h *Health) UnmarshalText(text []byte) error {
	for i, n := range healthNames {
		if n == string(text) {
			*h = Health(i)
			return nil
		}
	}
	return errUnknownHealth
}

// Instance is one running copy of a service. It is immutable in a Model.
type Instance struct {
	Service  string            `json:"service"`
	ID       string            `json:"id"`
	Address  string            `json:"address"` // IP address; names are refused at registration
	Port     uint16            `json:"port"`
	Protocol string            `json:"protocol,omitempty"` // http (default), http2, grpc, tcp, tls
	Zone     string            `json:"zone,omitempty"`
	Region   string            `json:"region,omitempty"`
	Weight   uint32            `json:"weight,omitempty"` // 0 counts as 1
	Version  string            `json:"version,omitempty"`
	Metadata map[string]string `json:"metadata,omitzero"`
	Health   Health            `json:"health"`
	Node     string            `json:"node,omitempty"` // node id of the sidecar that registered it
	Static   bool              `json:"static,omitempty"`
	// MutualTLS: the instance takes mutual TLS, as the identity of its service.
	MutualTLS bool `json:"mutualTLS,omitempty"`
	// Held is set while the shrink guard keeps an instance whose lease ended.
	Held     bool   `json:"held,omitempty"`
	Revision uint64 `json:"revision,omitempty"` // durable revision of the registration
}

// EffectiveWeight is the weight with its default.
func (i *Instance) EffectiveWeight() uint32 { return max(i.Weight, 1) }

// Routable says whether new requests may go to the instance when others are as good.
func (i *Instance) Routable() bool { return i.Health == HealthUnknown || i.Health == HealthHealthy }
