// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/outrigger-mesh/outrigger/pkg/filter"
	filters "github.com/outrigger-mesh/outrigger/pkg/filter/all"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
	"github.com/outrigger-mesh/outrigger/pkg/xds/decode"
	"github.com/outrigger-mesh/outrigger/pkg/xds/server"
)

var update = flag.Bool("update", false, "rewrite the wanted output of testdata/build")

// The scripts in testdata/build are steps. A step is some of
//
//	N.group      the group that is built (it stays for later steps)
//	N.put.yaml   objects to apply
//	N.instances.yaml  instances to register
//	N.delete     Kind/name of an object, or service/id of an instance, a line
//	N.at         seconds since the start
//
// and N.want.yaml: what is pushed because of it, what is removed, problems, and
// the content of what is pushed.
func TestBuildScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/build/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runScript(t, file) })
	}
}

// script is one run of the builder over the steps.
type script struct {
	t       *testing.T
	builder *builder
	model   *mesh.Model
	group   Group
	now     time.Time
	epoch   int64
	// published is what the pushes so far add up to, by type and name.
	published map[string]map[string]string
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func runScript(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	prose, sections := parseArchive(string(text))
	xds, err := server.New(server.Config{Groups: groupsOf})
	if err != nil {
		t.Fatal(err)
	}
	defer xds.Close()
	s := &script{t: t, model: mesh.Empty(), now: start, published: map[string]map[string]string{},
		builder: newBuilder(func(name string, m proto.Message) (*server.Resource, error) { return xds.NewResource(name, m) }, "mesh.example")}
	for i := range sections {
		f := &sections[i]
		_, verb, _ := strings.Cut(f.name, ".")
		switch verb {
		case "group":
			if s.group, err = ParseGroup(strings.TrimSpace(f.data)); err != nil {
				t.Fatal(err)
			}
			s.published = map[string]map[string]string{} // of that group
		case "put.yaml":
			s.put([]byte(f.data))
		case "instances.yaml":
			s.register([]byte(f.data))
		case "delete":
			s.delete(f.data)
		case "at":
			var seconds int
			if _, err := fmt.Sscan(f.data, &seconds); err != nil {
				t.Fatal(err)
			}
			s.now = start.Add(time.Duration(seconds) * time.Second)
			s.epoch++
		case "want.yaml":
			got := s.step()
			if *update {
				f.data = string(got)
			} else if diff := cmp.Diff(f.data, string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", f.name, diff)
			}
			s.compareWithAFreshBuild()
		default:
			t.Fatalf("%s: unknown section", f.name)
		}
	}
	if *update {
		for _, f := range sections {
			prose += "-- " + f.name + " --\n" + f.data
		}
		if err := os.WriteFile(file, []byte(prose), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// section is one "-- name --" part of a txtar file.
type section struct{ name, data string }

func parseArchive(text string) (prose string, sections []section) {
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(name, " --\n") {
			sections = append(sections, section{name: strings.TrimSuffix(name, " --\n")})
			continue
		}
		if len(sections) == 0 {
			prose += line
			continue
		}
		sections[len(sections)-1].data += line
	}
	return prose, sections
}

func (s *script) put(data []byte) {
	objects, err := mesh.Parse("script", data)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, o := range objects {
		if o.Head().Metadata.CreatedAt.IsZero() {
			o.Head().Metadata.CreatedAt = start.Add(time.Duration(i) * time.Second)
		}
		s.model = s.model.Apply(mesh.Change{Put: o})
	}
}

func (s *script) register(data []byte) {
	var list []*mesh.Instance
	if err := yaml.UnmarshalStrict(data, &list); err != nil {
		s.t.Fatal(err)
	}
	for _, i := range list {
		s.model = s.model.Apply(mesh.Change{PutInstance: i})
	}
}

func (s *script) delete(lines string) {
	for line := range strings.Lines(lines) {
		a, b, _ := strings.Cut(strings.TrimSpace(line), "/")
		if _, err := mesh.KindNamed(a); err == nil {
			s.model = s.model.Apply(mesh.Change{Delete: mesh.Key{Kind: a, Name: b}})
			continue
		}
		s.model = s.model.Apply(mesh.Change{DeleteInstance: mesh.InstanceKey{Service: a, ID: b}})
	}
}

// step builds, and prints what that pushes.
func (s *script) step() []byte {
	s.builder.adopt(s.model, s.now)
	updates, problems := s.builder.build(s.group, s.now, s.epoch)
	var out bytes.Buffer
	var content []string
	for _, u := range updates {
		short := u.Type[strings.LastIndex(u.Type, ".")+1:]
		if s.published[u.Type] == nil {
			s.published[u.Type] = map[string]string{}
		}
		for _, r := range u.Changed {
			fmt.Fprintf(&out, "# push %s %s\n", short, r.Name())
			s.published[u.Type][r.Name()] = r.Version()
			content = append(content, show(s.t, short, r))
			s.decode(u.Type, r)
		}
		for _, name := range u.Removed {
			fmt.Fprintf(&out, "# remove %s %s\n", short, name)
			delete(s.published[u.Type], name)
		}
	}
	var lines []string
	for _, p := range problems {
		lines = append(lines, fmt.Sprintf("# problem %s: %s\n", p.Resource, p.Error()))
	}
	slices.Sort(lines)
	out.WriteString(strings.Join(lines, ""))
	if out.Len() == 0 {
		out.WriteString("# nothing\n")
	}
	out.WriteString(strings.Join(content, ""))
	return out.Bytes()
}

// decode shows that our own sidecar takes what is made for it.
func (s *script) decode(typeURL string, r *server.Resource) {
	s.t.Helper()
	if s.group.Kind == KindGRPC {
		return // listeners without a socket
	}
	kind, ok := decode.KindOf(typeURL)
	if !ok {
		s.t.Fatalf("the sidecar does not know %s", typeURL)
	}
	if _, err := decode.NewDecoder(filter.NewRegistry(filters.Specs(nil)...)).Decode(kind, r.Name(), r.Any()); err != nil {
		s.t.Errorf("the sidecar refuses %s: %v", r.Name(), err)
	}
}

// show is a resource as YAML: the packed messages unpacked, the field names in order.
func show(t *testing.T, kind string, r *server.Resource) string {
	t.Helper()
	m, err := r.Any().UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	body, err := yaml.JSONToYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("--- # %s %s\n%s", kind, r.Name(), body)
}

// compareWithAFreshBuild shows that what was remembered led to the same as
// building everything: the pushes so far add up to Build's answer.
func (s *script) compareWithAFreshBuild() {
	s.t.Helper()
	resources, _ := Build(s.model, s.group, s.now, "mesh.example")
	want := map[string]map[string]string{}
	for typeURL, byName := range resources {
		want[typeURL] = map[string]string{}
		for name, m := range byName {
			r, err := s.builder.newResource(name, m)
			if err != nil {
				s.t.Fatal(err)
			}
			want[typeURL][name] = r.Version()
		}
	}
	got := map[string]map[string]string{}
	for typeURL, byName := range s.published {
		if len(byName) > 0 {
			got[typeURL] = byName
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Errorf("published and built from nothing differ (-built +published):\n%s", diff)
	}
}
