// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-mesh/outrigger/pkg/xds/client"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
)

// Scripts in testdata/*.script drive a Stream. A line with ">" is an event:
//
//	> new sotw|delta [node-once] [polling]
//	> open | close
//	> want cds *           | want eds a b   | want eds        (nothing any more)
//	> world cds v1 n1 a b! bad?  = a response: "!" is an invalid resource,
//	                               "?" one whose bytes are no message
//	> polled rds v1 n1 for a     = a response without resources to a poll for names
//	> delta cds n1 a@1 b!@2 -gone  = an incremental response; "~" has a time to live
//
// The lines that follow, without ">", are what must come of it.
func TestStreamFollowsTheScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.script")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".script"), func(t *testing.T) {
			runScript(t, file)
		})
	}
}

type script struct {
	t      *testing.T
	stream *client.Stream
	held   map[string][]byte
	count  int // decoded resources
}

func runScript(t *testing.T, file string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &script{t: t}
	var want, got []string
	at, event := 0, ""
	check := func() {
		if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
			t.Errorf("%s:%d: %s\ngot:\n%s\nwant:\n%s", file, at, event, g, w)
		}
	}
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, ">"):
			check()
			at, event, want = n, line, nil
			got = s.run(strings.Fields(line[1:]))
		default:
			want = append(want, line)
		}
	}
	check()
}

var shorts = func() map[string]decode.Kind {
	m := map[string]decode.Kind{}
	for _, t := range decode.Types() {
		m[t.Short] = t.Kind
	}
	return m
}()

func (s *script) run(f []string) []string {
	switch f[0] {
	case "new":
		s.held = map[string][]byte{}
		d := decode.NewDecoder(nil)
		s.stream = client.NewStream(client.StreamConfig{
			Delta: f[1] == "delta", Node: &corev3.Node{Id: "n"},
			NodeFirstOnly: contains(f, "node-once"), Polling: contains(f, "polling"),
			Decode: func(k decode.Kind, name string, a *anypb.Any) (*decode.Resource, error) {
				s.count++
				return d.Decode(k, name, a)
			},
			Name:  d.Name,
			Known: func(k decode.Kind, name string) []byte { return s.held[fmt.Sprint(k, name)] },
		})
		return nil
	case "open":
		return s.step(client.Opened{})
	case "close":
		return s.step(client.Closed{})
	case "want":
		names := f[2:]
		if len(names) == 1 && names[0] == "*" {
			return s.step(client.Subscribe{Kind: shorts[f[1]], Wildcard: true})
		}
		return s.step(client.Subscribe{Kind: shorts[f[1]], Names: names})
	case "world":
		r := &discoveryv3.DiscoveryResponse{TypeUrl: typeURL(f[1]), VersionInfo: f[2], Nonce: f[3]}
		for _, name := range f[4:] {
			_, a := s.resource(f[1], name)
			r.Resources = append(r.Resources, a)
		}
		return s.step(client.Response{DiscoveryResponse: r})
	case "polled":
		r := &discoveryv3.DiscoveryResponse{TypeUrl: typeURL(f[1]), VersionInfo: f[2], Nonce: f[3]}
		return s.step(client.Response{DiscoveryResponse: r, Asked: &discoveryv3.DiscoveryRequest{ResourceNames: f[5:]}})
	case "delta":
		r := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL(f[1]), Nonce: f[2]}
		for _, word := range f[3:] {
			if gone, ok := strings.CutPrefix(word, "-"); ok {
				r.RemovedResources = append(r.RemovedResources, gone)
				continue
			}
			word, version, _ := strings.Cut(word, "@")
			word, limited := strings.CutSuffix(word, "~")
			name, a := s.resource(f[1], word)
			res := &discoveryv3.Resource{Name: name, Version: version, Resource: a}
			if limited {
				res.Ttl = durationpb.New(time.Second)
			}
			r.Resources = append(r.Resources, res)
		}
		return s.step(client.DeltaResponse{DeltaDiscoveryResponse: r})
	}
	s.t.Fatalf("unknown event %q", f)
	return nil
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func typeURL(short string) string {
	if k, ok := shorts[short]; ok {
		return decode.TypeOf(k).URL
	}
	return short
}

// resource makes a cluster (or endpoints) by name: "a!" is refused, "a?" is no
// message, "a=5" has another connect timeout.
func (s *script) resource(short, word string) (string, *anypb.Any) {
	name := strings.TrimRight(word, "!?")
	name, alt, _ := strings.Cut(name, "=")
	var m proto.Message = &clusterv3.Cluster{Name: name, AltStatName: alt}
	if short == "eds" {
		m = endpoints(name)
	}
	if strings.HasSuffix(word, "!") {
		switch r := m.(type) {
		case *clusterv3.Cluster:
			r.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
		case *endpointv3.ClusterLoadAssignment:
			r.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(0)}
		}
	}
	a, err := anypb.New(m)
	if err != nil {
		s.t.Fatal(err)
	}
	if strings.HasSuffix(word, "?") {
		a.Value = []byte{0xff}
	}
	return name, a
}

func (s *script) step(ev client.Event) []string {
	s.count = 0
	out := s.stream.Step(ev)
	var lines []string
	if out.Unexpected != "" {
		lines = append(lines, "unexpected "+out.Unexpected)
	}
	for _, u := range out.Updates {
		var set []string
		for _, it := range u.Set {
			word := it.Name
			if it.Version != "" {
				word += "@" + it.Version
			}
			set = append(set, word)
			s.held[fmt.Sprint(u.Kind, it.Name)] = it.Bytes
		}
		line := fmt.Sprintf("update %s decoded=%d set=%v", decode.TypeOf(u.Kind).Short, s.count, set)
		if len(u.Removed) > 0 {
			line += fmt.Sprintf(" removed=%v", u.Removed)
		}
		if u.Full {
			line += " full"
		}
		for _, r := range u.Rejected {
			line += fmt.Sprintf(" refused=%q", r.Name)
		}
		lines = append(lines, line)
	}
	for _, r := range out.Requests {
		lines = append(lines, request(r))
	}
	return lines
}

func request(r client.Request) string {
	short := decode.TypeOf(r.Kind).Short
	if d := r.Delta; d != nil {
		line := "send " + short
		if len(d.GetInitialResourceVersions()) > 0 {
			var held []string
			for name, v := range d.GetInitialResourceVersions() {
				held = append(held, name+"@"+v)
			}
			sort.Strings(held)
			line += fmt.Sprintf(" held=%v", held)
		}
		if len(d.GetResourceNamesSubscribe()) > 0 {
			line += fmt.Sprintf(" +%v", d.GetResourceNamesSubscribe())
		}
		if len(d.GetResourceNamesUnsubscribe()) > 0 {
			line += fmt.Sprintf(" -%v", d.GetResourceNamesUnsubscribe())
		}
		return line + tail(d.GetResponseNonce(), d.GetNode(), d.GetErrorDetail().GetMessage(), r.Again)
	}
	w := r.World
	line := fmt.Sprintf("send %s version=%q names=%v", short, w.GetVersionInfo(), w.GetResourceNames())
	return line + tail(w.GetResponseNonce(), w.GetNode(), w.GetErrorDetail().GetMessage(), r.Again)
}

func tail(nonce string, node *corev3.Node, nack string, again bool) string {
	out := ""
	if nonce != "" {
		out += " nonce=" + nonce
	}
	if node != nil {
		out += " node"
	}
	if nack != "" {
		out += " nack=" + strings.ReplaceAll(nack, "\n", " | ")
	}
	if again {
		out += " again"
	}
	return out
}
