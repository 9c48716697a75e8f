// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// startLimit bounds the start of one process on a busy machine.
const startLimit = 30 * time.Second

// maxBody bounds what is read of an answer.
const maxBody = 32 << 20

// client keeps no connections, so that none outlives a test.
var client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// Answer is an HTTP answer.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Do sends one request; only failing to get an answer is an error.
func Do(method, url, contentType, body string) (Answer, error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	response, err := client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close() //nolint:errcheck // read to its end below
	b, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return Answer{}, fmt.Errorf("read the answer: %w", err)
	}
	return Answer{response.StatusCode, response.Header, string(b)}, nil
}

// Get asks for 200 and gives the body.
func Get(url string) (string, error) {
	a, err := Do(http.MethodGet, url, "", "")
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("GET %s: %d: %s", url, a.Status, strings.TrimSpace(a.Body))
	}
	return a.Body, err
}

// PutYAML puts an object and wants it accepted.
func (c *ControlPlane) PutYAML(kind, name, yaml string) {
	c.t.Helper()
	a, err := Do(http.MethodPut, c.URL("/v1/objects/"+kind+"/"+name), "application/yaml", yaml)
	if err != nil || a.Status/100 != 2 {
		c.t.Fatalf("PUT %s/%s: %d %v\n%s", kind, name, a.Status, err, a.Body)
	}
}

// Delete deletes what is there.
func (c *ControlPlane) Delete(path string) {
	c.t.Helper()
	a, err := Do(http.MethodDelete, c.URL(path), "", "")
	if err != nil || a.Status/100 != 2 {
		c.t.Fatalf("DELETE %s: %d %v\n%s", path, a.Status, err, a.Body)
	}
}

// PutInstance registers an instance that no sidecar keeps, with a lease that
// outlasts the test. Further members of the body may be given.
func (c *ControlPlane) PutInstance(service, id, address string, more ...string) {
	c.t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		c.t.Fatal(err)
	}
	members := append([]string{fmt.Sprintf(`"address":%q,"port":%s,"health":"healthy","leaseSeconds":3600`, host, port)}, more...)
	body := "{" + strings.Join(members, ",") + "}"
	a, err := Do(http.MethodPut, c.URL("/v1/services/"+service+"/instances/"+id), "application/json", body)
	if err != nil || a.Status/100 != 2 {
		c.t.Fatalf("PUT instance %s/%s: %d %v\n%s", service, id, a.Status, err, a.Body)
	}
}

// InstanceState is an instance as the registry has it.
type InstanceState struct {
	ID     string `json:"id"`
	Health string `json:"health"`
}

// Instances are those of a service; none if the service is not known.
func (c *ControlPlane) Instances(service string) ([]InstanceState, error) {
	var v struct {
		List []InstanceState `json:"list"`
	}
	a, err := Do(http.MethodGet, c.URL("/v1/services/"+service), "", "")
	if err != nil || a.Status == http.StatusNotFound {
		return nil, err
	}
	return v.List, json.Unmarshal([]byte(a.Body), &v)
}

// TypeState is what a sidecar has of one resource type.
type TypeState struct {
	Type     string `json:"type"`
	Latest   string `json:"latest"`
	Accepted string `json:"accepted"`
	Pending  bool   `json:"pending"`
	Rejected []struct {
		Resource string `json:"resource"`
		Reason   string `json:"reason"`
	} `json:"rejected"`
}

// SidecarState is a sidecar as the control plane sees it.
type SidecarState struct {
	Node      string      `json:"node"`
	Connected bool        `json:"connected"`
	Synced    bool        `json:"synced"`
	Types     []TypeState `json:"types"`
}

// Of finds a type by the last word of its URL, such as Cluster.
func (s SidecarState) Of(name string) TypeState {
	for _, t := range s.Types {
		if strings.HasSuffix(t.Type, "."+name) {
			return t
		}
	}
	return TypeState{}
}

// Sidecar finds a sidecar by its node id.
func (c *ControlPlane) Sidecar(node string) (SidecarState, error) {
	body, err := Get(c.URL("/v1/sidecars?limit=500"))
	if err != nil {
		return SidecarState{}, err
	}
	var v struct {
		Items []SidecarState `json:"items"`
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		return SidecarState{}, err
	}
	for _, s := range v.Items {
		if s.Node == node {
			return s, nil
		}
	}
	return SidecarState{}, fmt.Errorf("no sidecar %q among %d", node, len(v.Items))
}

// Accepted is the version of a type that a sidecar has in service.
func (c *ControlPlane) Accepted(node, kind string) string {
	c.t.Helper()
	s, err := c.Sidecar(node)
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Of(kind).Accepted
}

// AwaitChange waits until the sidecar has accepted another version of the type
// than old and has nothing outstanding; it returns how long that took.
func (c *ControlPlane) AwaitChange(node, kind, old string) time.Duration {
	c.t.Helper()
	return Await(c.t, 20*time.Second, "a change of "+kind+" at "+node, func() error {
		s, err := c.Sidecar(node)
		if err != nil {
			return err
		}
		switch t := s.Of(kind); {
		case len(t.Rejected) > 0:
			return fmt.Errorf("%w: refused: %+v", errFinal, t.Rejected)
		case t.Accepted == old, t.Pending, t.Accepted != t.Latest:
			return fmt.Errorf("it has %+v", t)
		}
		return nil
	})
}
