// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/agent"
	"github.com/outrigger-mesh/outrigger/pkg/mesh"
)

func TestAnApplicationThatOthersObjectToIsUnhealthy(t *testing.T) {
	cp := startControlPlane(t)
	app := startApp(t)
	var objection atomic.Pointer[string]
	c := config(cp)
	c.LeaseTTL = time.Minute // so that no renewal carries the change
	c.App = app.address()
	c.Health = agent.HealthCheck{Interval: 5 * time.Millisecond}
	c.Objection = func() error {
		if s := objection.Load(); s != nil {
			return errors.New(*s)
		}
		return nil
	}
	why := "health check of its policy: status 503"
	objection.Store(&why)
	a := running(t, c)
	eventually(t, "it is registered as unhealthy", func() bool {
		i := cp.instance()
		return i != nil && i.Health == mesh.HealthUnhealthy
	})
	if s := a.Status(); s.AppHealthy || !strings.Contains(s.AppReason, why) {
		t.Errorf("got %+v, want a reason with %q", s, why)
	}
	objection.Store(nil)
	eventually(t, "it is healthy", func() bool { return cp.instance().Health == mesh.HealthHealthy })
	// One objection is enough: it has been tried as often as its policy says.
	objection.Store(&why)
	eventually(t, "it is unhealthy again", func() bool { return cp.instance().Health == mesh.HealthUnhealthy })
}
