// SPDX-License-Identifier: Apache-2.0

package mesh

// Fallback is the answer in place of an error of the mesh: the first of another
// service's, the last good one, and one that the policy writes, that there is.
type Fallback struct {
	Service     string          `json:"service,omitempty" rule:"maxlen=253" doc:"Another service that the request goes to. Its own fallback is not asked."`
	Cached      *CachedFallback `json:"cached,omitempty" doc:"The last good answer to the same GET, as far as RFC 9111 allows a cache that is shared to keep it: never of requests with Authorization or Cookie, nor of answers with Set-Cookie or private."`
	Status      uint16          `json:"status,omitempty" rule:"min=200,max=599" doc:"200 when empty; beside service and cached there is no answer of this kind unless status, body or contentType say so."`
	Body        string          `json:"body,omitempty" rule:"maxlen=65536" doc:"Body, up to 64 KiB."`
	ContentType string          `json:"contentType,omitempty" rule:"maxlen=256" doc:"text/plain when empty."`
}

// CachedFallback bounds what is kept.
type CachedFallback struct {
	MaxAge  *Duration `json:"maxAge,omitempty" rule:"mindur=1s,maxdur=24h" doc:"The oldest answer that is used; 10m when empty."`
	MaxBody *Size     `json:"maxBody,omitempty" rule:"maxsize=1MiB" doc:"The longest body that is kept, up to 1MiB; 64KiB when empty."`
}

// Writes reports whether the policy writes an answer itself.
func (fb *Fallback) Writes() bool {
	return fb.Status != 0 || fb.Body != "" || fb.ContentType != "" || fb.Service == "" && fb.Cached == nil
}

func (fb *Fallback) check(f *faults, path, target string) {
	checkServiceName(f, path+".service", fb.Service)
	if fb.Service != "" && fb.Service == target {
		f.add(path+".service", "%q is the policy's own service: name another one", clip(fb.Service))
	}
	checkHeaderValue(f, path+".contentType", fb.ContentType)
	if (fb.Status == 204 || fb.Status == 205 || fb.Status == 304) && fb.Body != "" {
		f.add(path+".body", "status %d has no body", fb.Status)
	}
}
