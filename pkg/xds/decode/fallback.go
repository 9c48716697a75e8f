// SPDX-License-Identifier: Apache-2.0

package decode

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// fallbackSettings are of clusters and of routes. The answer of our own is one of its
// parts where any of its fields is there, or no other part is.
type fallbackSettings struct {
	Cluster     string          `json:"cluster"`
	Cached      *cachedSettings `json:"cached"`
	Status      *int            `json:"status"`
	Body        string          `json:"body"`
	ContentType string          `json:"contentType"`
}

type cachedSettings struct {
	MaxAgeMS     *int `json:"maxAgeMs"`
	MaxBodyBytes *int `json:"maxBodyBytes"`
}

// Bounds of cached answers.
const (
	defaultCachedAge  = 10 * time.Minute
	maxCachedAge      = 24 * time.Hour
	defaultCachedBody = 64 << 10
	maxCachedBody     = 1 << 20
)

// fallback reads the fallback of the cluster of that name, "" for a route's.
func (j *job) fallback(f *fallbackSettings, cluster string, p *place) *resource.Fallback {
	if f == nil {
		return nil
	}
	j.only(f.Cluster != "" && f.Cluster == cluster, p.field("cluster"), "is the cluster itself")
	out := &resource.Fallback{Cluster: j.intern(f.Cluster)}
	if f.Cluster != "" {
		j.need(Cluster, f.Cluster, Source{})
	}
	if c := f.Cached; c != nil {
		at := p.field("cached")
		out.Cached = &resource.CachedFallback{
			MaxAge:  time.Duration(j.number(c.MaxAgeMS, int(defaultCachedAge.Milliseconds()), 1, int(maxCachedAge.Milliseconds()), at.field("maxAgeMs"))) * time.Millisecond,
			MaxBody: j.number(c.MaxBodyBytes, defaultCachedBody, 0, maxCachedBody, at.field("maxBodyBytes")),
		}
	}
	if f.Status != nil || f.Body != "" || f.ContentType != "" || f.Cluster == "" && f.Cached == nil {
		out.Static = j.staticFallback(f, p)
	}
	return out
}

func (j *job) staticFallback(f *fallbackSettings, p *place) *resource.DirectResponse {
	out := &resource.DirectResponse{
		Status: j.number(f.Status, 200, 200, 599, p.field("status")),
		Body:   []byte(f.Body), ContentType: f.ContentType,
	}
	j.only(!validHeaderValue(f.ContentType), p.field("contentType"), "has control characters")
	j.only(len(f.Body) > 1<<20, p.field("body"), "has more than 1 MiB")
	if out.ContentType == "" && f.Body != "" {
		out.ContentType = "text/plain"
	}
	return out
}
