// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-mesh/outrigger/test/e2e/mesh"
)

// A policy keeps a client at its instance, through sidecars that know nothing of each other,
// a restart of the control plane and a roll-over of its keys, which are shown nowhere.
func TestAPolicysSessionsOutliveTheirKeys(t *testing.T) {
	m := mesh.New(t, "--session-key-life", "16s")
	callers := []*mesh.Sidecar{m.Caller("c1"), m.Caller("c2")}
	names := []string{"p1", "p2", "p3"}
	for _, name := range names {
		m.Instance("payments", name)
	}
	for _, c := range callers {
		m.AwaitAnswers(c, "payments", names...)
	}
	if r := m.ControlPlane.CLI(admissionPolicy("sessionPersistence: {sessionName: sid}, loadBalancer: {policy: random}"), "apply", "-f", "-"); r.Code != 0 {
		t.Fatalf("apply: %+v", r)
	}
	if x := m.ControlPlane.CLI("", "explain", "GET", "http://payments/", "--from", "web").Output; !strings.Contains(x, "sessions by the cookie sid") {
		t.Errorf("explained as %s", x)
	}
	cookie, at := "", ""
	// call adopts what the answer says of the session, as a client does.
	call := func(c *mesh.Sidecar) (told bool, err error) {
		q, err := http.NewRequest(http.MethodGet, "http://"+c.Outbound+"/", http.NoBody)
		if err != nil {
			return false, err
		}
		q.Host = "payments"
		if cookie != "" {
			q.Header.Set("Cookie", cookie)
		}
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			return false, err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return false, fmt.Errorf("it is answered %d", resp.StatusCode)
		}
		got := resp.Header.Get(mesh.InstanceHeader)
		set, _, told := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
		if told {
			cookie = set
		}
		if at != "" && got != at {
			t.Errorf("a session at %s is at %s", at, got)
		}
		if told {
			at = got
		}
		return told, nil
	}
	// A sidecar takes part as soon as it has the policy.
	for _, c := range callers {
		c.Await(admissionLimit, "a session", func() error {
			cookie, at = "", ""
			told, err := call(c)
			if err == nil && !told {
				err = errors.New("no cookie")
			}
			return err
		})
	}
	both := func() (renewed bool) {
		t.Helper()
		for _, c := range callers {
			told, err := call(c)
			if err != nil {
				t.Fatal(err)
			}
			renewed = renewed || told
		}
		return renewed
	}
	for range 10 {
		both()
	}
	m.ControlPlane.Kill()
	m.ControlPlane.Restart()
	for _, c := range callers {
		c.Await(admissionLimit, "the sidecar is connected again", func() error {
			s, err := m.ControlPlane.Sidecar(c.Node())
			if err == nil && !s.Connected {
				err = errors.New("it is not")
			}
			return err
		})
	}
	callers[0].Await(2*admissionLimit, "a session by the next key", func() error {
		if !both() {
			return errors.New("it is still the key of before")
		}
		return nil
	})

	file, err := os.ReadFile(filepath.Join(m.ControlPlane.Data, "session-keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ Keys []struct{ Secret []byte } }
	if err := json.Unmarshal(file, &kept); err != nil || len(kept.Keys) != 2 {
		t.Fatalf("%d keys are kept, %v", len(kept.Keys), err)
	}
	shown := map[string]string{"the control plane's log": m.ControlPlane.Output(), "the sidecar's log": callers[0].Output()}
	for name, url := range map[string]string{
		"/config_dump":       "http://" + callers[0].Admin + "/config_dump?include_eds",
		"the sidecar's part": m.ControlPlane.URL("/v1/sidecars/" + callers[0].Node() + "/config"),
	} {
		if shown[name], err = mesh.Get(url); err != nil || !strings.Contains(shown[name], "session-keys") {
			t.Errorf("%s: %v, or nothing of session-keys", name, err)
		}
	}
	a, err := mesh.Do(http.MethodPost, m.ControlPlane.URL("/v3/discovery:secrets"), "application/json",
		`{"node": {"id": "web~c1", "cluster": "web"}, "resource_names": ["session-keys"]}`)
	if err != nil || a.Status != http.StatusOK && a.Status != http.StatusServiceUnavailable {
		t.Errorf("a poll for secrets: %+v, %v", a, err)
	}
	shown["a poll"] = a.Body
	callers[0].AwaitLastGood()
	disk, err := os.ReadFile(filepath.Join(callers[0].Data, "xds-last-good"))
	if err != nil {
		t.Fatal(err)
	}
	shown["the last good configuration"] = string(disk)
	for name, text := range shown {
		for _, k := range kept.Keys {
			for _, form := range []string{string(k.Secret), base64.StdEncoding.EncodeToString(k.Secret)[:20], hex.EncodeToString(k.Secret)} {
				if strings.Contains(text, form) {
					t.Errorf("%s shows a key", name)
				}
			}
		}
	}
}
