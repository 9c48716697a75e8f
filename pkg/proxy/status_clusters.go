// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/outrigger-mesh/outrigger/pkg/lb"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// ClusterStatus is a cluster with its endpoints, in the shape of Envoy's
// envoy.admin.v3.ClusterStatus.
type ClusterStatus struct {
	Name              string       `json:"name"`
	AddedViaAPI       bool         `json:"added_via_api,omitempty"`
	Hosts             []HostStatus `json:"host_statuses,omitempty"`
	CircuitBreakers   LimitsStatus `json:"circuit_breakers"`
	ObservabilityName string       `json:"observability_name"`
	EDSServiceName    string       `json:"eds_service_name,omitempty"`
	OutlierRates
	outlier bool // detection is configured
}

// LimitsStatus are a cluster's limits, default priority first.
type LimitsStatus struct {
	Thresholds [2]ThresholdStatus `json:"thresholds"`
}

// ThresholdStatus are the limits of one priority.
type ThresholdStatus struct {
	Priority       string `json:"priority,omitempty"` // "HIGH", or empty for the default
	MaxConnections uint32 `json:"max_connections"`
	MaxPending     uint32 `json:"max_pending_requests"`
	MaxRequests    uint32 `json:"max_requests"`
	MaxRetries     uint32 `json:"max_retries"`
}

// HostStatus is an endpoint, in the shape of Envoy's envoy.admin.v3.HostStatus.
type HostStatus struct {
	Address  AddressStatus  `json:"address"`
	Stats    []HostStat     `json:"stats"`
	Health   HealthStatus   `json:"health_status"`
	Weight   uint32         `json:"weight"`
	Hostname string         `json:"hostname,omitempty"`
	Priority uint32         `json:"priority,omitempty"`
	Locality LocalityStatus `json:"locality"`
	Canary   bool           `json:"-"`
	HostRates
}

// HostStat is one number of an endpoint. As in Envoy's JSON, 64-bit numbers are
// text, and a type of COUNTER or a value of 0 is left out.
type HostStat struct {
	Type  string `json:"type,omitempty"`
	Value uint64 `json:"value,omitempty,string"`
	Name  string `json:"name"`
}

// HealthStatus says why an endpoint is not used, if so.
type HealthStatus struct {
	FailedActive  bool   `json:"failed_active_health_check,omitempty"`
	FailedOutlier bool   `json:"failed_outlier_check,omitempty"`
	Degraded      bool   `json:"failed_active_degraded_check,omitempty"`
	Pending       bool   `json:"pending_active_hc,omitempty"`
	TimedOut      bool   `json:"active_hc_timeout,omitempty"`
	EDS           string `json:"eds_health_status"`
}

// LocalityStatus is where an endpoint is.
type LocalityStatus struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	SubZone string `json:"sub_zone,omitempty"`
}

// Clusters lists the clusters by name with their endpoints, those that keep
// accepts; a nil keep accepts all. Any goroutine may call it.
func (p *Proxy) Clusters(keep func(name string) bool) []ClusterStatus {
	list := []ClusterStatus{}
	for _, c := range p.clustersByName() {
		if keep == nil || keep(c.c.name) {
			list = append(list, clusterStatus(c.c.name, c.spec))
		}
	}
	return list
}

func clusterStatus(name string, spec *clusterSpec) ClusterStatus {
	res := spec.res
	s := ClusterStatus{
		Name: name, ObservabilityName: name, AddedViaAPI: res.Type == resource.EDS,
		EDSServiceName: res.EDSName, outlier: spec.outlier != nil,
	}
	if res.AltStatName != "" {
		s.ObservabilityName = res.AltStatName
	}
	if res.EDSName == name {
		s.EDSServiceName = ""
	}
	for i, th := range [...]*resource.Thresholds{&res.Default, &res.High} {
		s.CircuitBreakers.Thresholds[i] = ThresholdStatus{
			Priority:       [...]string{"", "HIGH"}[i],
			MaxConnections: th.MaxConnections, MaxPending: th.MaxPending, MaxRequests: th.MaxRequests, MaxRetries: th.MaxRetries,
		}
	}
	for _, h := range spec.lb.View().Hosts() {
		s.Hosts = append(s.Hosts, hostStatus(h))
	}
	s.rate(spec)
	return s
}

func hostStatus(h *lb.Host) HostStatus {
	l := h.Locality()
	s := HostStatus{
		Weight: h.Weight(), Hostname: h.Hostname(), Priority: l.Priority, Canary: h.Canary(),
		Locality: LocalityStatus{l.Region, l.Zone, l.SubZone},
		Health: HealthStatus{
			FailedActive: h.Failed(), FailedOutlier: h.Ejected(), Degraded: h.DegradedByCheck(), Pending: h.Unchecked(), TimedOut: h.TimedOut(),
			EDS: edsHealth(h.EDSHealth()),
		},
		Stats: []HostStat{
			{Name: "cx_connect_fail", Value: h.Stats.CxConnectFail.Load()},
			{Name: "cx_total", Value: h.Stats.CxTotal.Load()},
			{Name: "rq_error", Value: h.Stats.RqError.Load()},
			{Name: "rq_success", Value: h.Stats.RqSuccess.Load()},
			{Name: "rq_timeout", Value: h.Stats.RqTimeout.Load()},
			{Name: "rq_total", Value: h.Stats.RqTotal.Load()},
			{Type: "GAUGE", Name: "cx_active", Value: uint64(max(h.Conns.Load(), 0))},
			{Type: "GAUGE", Name: "rq_active", Value: uint64(max(h.Active.Load(), 0))},
		},
	}
	if path := h.Path(); path != "" {
		s.Address = AddressStatus{Pipe: &PipeStatus{path}, text: path}
	} else {
		s.Address = AddressStatus{Socket: &SocketAddressStatus{h.Dial().Addr().String(), h.Dial().Port()}, text: h.Text()}
	}
	return s
}

// edsHealth is Envoy's name; it shows UNKNOWN as HEALTHY.
func edsHealth(h resource.HealthStatus) string {
	return [...]string{"HEALTHY", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"}[h]
}

// flags are the reasons as /clusters shows them: "healthy", or all that hold.
func (h *HealthStatus) flags() string {
	var b strings.Builder
	for _, f := range [...]struct {
		on   bool
		name string
	}{
		{h.FailedActive, "/failed_active_hc"},
		{h.FailedOutlier, "/failed_outlier_check"},
		{h.EDS == "UNHEALTHY" || h.EDS == "TIMEOUT", "/failed_eds_health"},
		{h.Degraded, "/degraded_active_hc"},
		{h.EDS == "DEGRADED", "/degraded_eds_health"},
		{h.Pending, "/pending_active_hc"},
		{h.TimedOut, "/active_hc_timeout"},
		{h.EDS == "DRAINING", "/eds_status_draining"},
	} {
		if f.on {
			b.WriteString(f.name)
		}
	}
	if b.Len() == 0 {
		return "healthy"
	}
	return b.String()
}

// WriteClusters writes the clusters that keep accepts as Envoy's /clusters does:
// lines of "cluster::key::value" and "cluster::address::key::value", or
// envoy.admin.v3.Clusters as JSON.
func (p *Proxy) WriteClusters(w io.Writer, asJSON bool, keep func(name string) bool) error {
	if asJSON {
		return writeJSON(w, struct {
			Statuses []ClusterStatus `json:"cluster_statuses,omitempty"`
		}{p.Clusters(keep)})
	}
	var b bytes.Buffer
	for _, c := range p.clustersByName() {
		if keep != nil && !keep(c.c.name) {
			continue
		}
		b.Reset() // one cluster at a time: there may be thousands
		s := clusterStatus(c.c.name, c.spec)
		s.text(&b)
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (c *ClusterStatus) text(b *bytes.Buffer) {
	line := func(key string, value any) { fmt.Fprintf(b, "%s::%s::%v\n", c.Name, key, value) }
	line("observability_name", c.ObservabilityName)
	if c.outlier {
		c.OutlierRates.lines(line)
	}
	for i, priority := range [...]string{"default_priority", "high_priority"} {
		th := &c.CircuitBreakers.Thresholds[i]
		line(priority+"::max_connections", th.MaxConnections)
		line(priority+"::max_pending_requests", th.MaxPending)
		line(priority+"::max_requests", th.MaxRequests)
		line(priority+"::max_retries", th.MaxRetries)
	}
	line("added_via_api", c.AddedViaAPI)
	if c.EDSServiceName != "" {
		line("eds_service_name", c.EDSServiceName)
	}
	for i := range c.Hosts {
		c.Hosts[i].text(b, c.Name)
	}
}

// hostTextOrder is the order of an endpoint's numbers in the text form, as places
// in HostStatus.Stats.
var hostTextOrder = [...]int{6, 0, 1, 7, 2, 3, 4, 5}

func (h *HostStatus) text(b *bytes.Buffer, cluster string) {
	line := func(key, value string) {
		for _, part := range [...]string{cluster, "::", h.Address.text, "::", key, "::", value, "\n"} {
			b.WriteString(part)
		}
	}
	for _, i := range hostTextOrder {
		line(h.Stats[i].Name, strconv.FormatUint(h.Stats[i].Value, 10))
	}
	line("hostname", h.Hostname)
	line("health_flags", h.Health.flags())
	line("weight", strconv.FormatUint(uint64(h.Weight), 10))
	line("region", h.Locality.Region)
	line("zone", h.Locality.Zone)
	line("sub_zone", h.Locality.SubZone)
	line("canary", strconv.FormatBool(h.Canary))
	line("priority", strconv.FormatUint(uint64(h.Priority), 10))
	h.HostRates.lines(line)
}
