// SPDX-License-Identifier: Apache-2.0

package mesh

import "time"

// RateLimit is how many requests an instance takes over time. Its sidecar refuses the others.
type RateLimit struct {
	Requests uint32       `json:"requests" rule:"required,min=1,max=1000000000" doc:"Requests that an instance takes in the time."`
	Per      *Duration    `json:"per,omitempty" rule:"mindur=50ms,maxdur=24h" doc:"The time; 1s when empty."`
	Burst    *uint32      `json:"burst,omitempty" rule:"min=1,max=1000000000" doc:"Requests that may come at once after a pause; as many as requests when empty."`
	By       *RateLimitBy `json:"by,omitempty" doc:"Limit each value of something for itself; all requests together when empty."`
	Status   uint16       `json:"status,omitempty" rule:"min=400,max=599" doc:"Answer to a refused request; 429 when empty."`
}

// RateLimitBy is what limits are counted by: exactly one field is set. A request without
// the header is not limited.
type RateLimitBy struct {
	Header   string `json:"header,omitempty" rule:"maxlen=256" doc:"A request header."`
	SourceIP bool   `json:"sourceIP,omitempty" doc:"The address that the caller's connection comes from, whatever X-Forwarded-For says."`
}

// maxRateSpan is how long a bucket may take to fill.
const maxRateSpan = 365 * 24 * time.Hour

func (r *RateLimit) check(f *faults, path string) {
	if r.Requests > 0 && r.Burst != nil {
		per := time.Second
		if r.Per != nil {
			per = time.Duration(*r.Per)
		}
		if float64(*r.Burst)/float64(r.Requests)*float64(per) > float64(maxRateSpan) {
			f.add(path+".burst", "it would take more than a year until so many requests may come at once")
		}
	}
	if by := r.By; by != nil {
		if (by.Header != "") == by.SourceIP {
			f.add(path+".by", "want exactly one of header and sourceIP")
		}
		checkHeaderName(f, path+".by.header", by.Header)
	}
}

// Fault makes requests late or fail on purpose, at the callers' sidecars.
type Fault struct {
	Delay     *FaultDelay `json:"delay,omitempty" doc:"Requests that are held up."`
	Abort     *FaultAbort `json:"abort,omitempty" doc:"Requests that are answered in place of an instance."`
	MaxActive *uint32     `json:"maxActive,omitempty" doc:"Requests of one sidecar that have a fault at a time; any number when empty."`
}

// FaultDelay holds requests up.
type FaultDelay struct {
	Fixed   Duration `json:"fixed" rule:"required,mindur=1ms,maxdur=10m" doc:"How long."`
	Percent *Percent `json:"percent,omitempty" doc:"Share of the requests; 100% when empty."`
}

// FaultAbort answers requests; one of status and grpcStatus is set.
type FaultAbort struct {
	Status     uint16   `json:"status,omitempty" rule:"min=200,max=599" doc:"The answer's status."`
	GRPCStatus uint16   `json:"grpcStatus,omitempty" rule:"min=1,max=16" doc:"Status of gRPC, for calls."`
	Percent    *Percent `json:"percent,omitempty" doc:"Share of the requests; 100% when empty."`
}

func (t *Fault) check(f *faults, path string) {
	if t.Delay == nil && t.Abort == nil {
		f.add(path, "want delay or abort")
	}
	if a := t.Abort; a != nil && (a.Status != 0) == (a.GRPCStatus != 0) {
		f.add(path+".abort", "want exactly one of status and grpcStatus")
	}
}

// HasFaults says whether any service has a fault.
func (m *Model) HasFaults() bool {
	for _, o := range m.Objects[KindTrafficPolicy] {
		if p, ok := o.(*TrafficPolicy); ok && p.Spec.Fault != nil {
			return true
		}
	}
	return false
}
