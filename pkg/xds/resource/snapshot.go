// SPDX-License-Identifier: Apache-2.0

package resource

// Snapshot is one complete, consistent configuration: every listener's routes,
// every route's clusters and every cluster's endpoints are in it.
type Snapshot struct {
	// Version counts snapshots of this process; it only grows.
	Version uint64
	// Versions are the control plane's version strings by type name ("lds", …).
	Versions map[string]string
	// Changes is what differs from the snapshot before; nil: that is not known.
	Changes *Changes

	Listeners   map[string]*Listener
	Routes      map[string]*RouteConfig // by name; virtual hosts of VHDS joined in
	ScopedRoute map[string]*ScopedRoute // by resource name
	Clusters    map[string]*Cluster
	Assignments map[string]*Assignment // by cluster name (EDS and static)
	Runtime     *Runtime
	Secrets     map[string]*Secret // SDS and static; never written to disk
}

// Changes says what a snapshot has changed, for who has the one before it in service.
type Changes struct {
	Since uint64 // Version of the one before
	// Clusters are the names, in order and each once, of all clusters that have come, gone
	// or changed, or that have another assignment.
	Clusters []string
}

// Runtime is the merged view of all layers (RTDS, static, admin): the later
// layer wins. Values are numbers or booleans as float64, or text.
type Runtime struct {
	Numbers map[string]float64
	Texts   map[string]string
}

// Percent is a fraction that a runtime key may override (RuntimeFractionalPercent).
type Percent struct {
	RuntimeKey  string // "" for none
	PerMillion  uint32 // default value
	Denominator uint32 // 100, 10 000 or 1 000 000: what a runtime value counts in
}

// Address is an IP socket or a Unix socket.
type Address struct {
	Host string // IP address literal; "" for a Unix socket
	Port uint16
	Path string // Unix socket; "@name" is abstract
}

// HeaderOption adds a header (HeaderValueOption).
type HeaderOption struct {
	Name      string // lower case
	Value     Format
	Action    HeaderAction
	KeepEmpty bool
}

// HeaderAction says what happens where the header exists.
type HeaderAction uint8

// The actions of HeaderAppendAction.
const (
	AppendIfExistsOrAdd HeaderAction = iota
	AddIfAbsent
	OverwriteIfExistsOrAdd
	OverwriteIfExists
)

// HeaderEdits are the header changes of one level: added ones, then removed.
type HeaderEdits struct {
	RequestAdd     []HeaderOption
	RequestRemove  []string // lower case
	ResponseAdd    []HeaderOption
	ResponseRemove []string
}

// Empty reports whether there is nothing to do.
func (e *HeaderEdits) Empty() bool {
	return len(e.RequestAdd)+len(e.RequestRemove)+len(e.ResponseAdd)+len(e.ResponseRemove) == 0
}

// Metadata is filter metadata flattened to what data paths read: text values by
// "filter name" and key. Other value kinds are left out.
type Metadata map[string]map[string]string
