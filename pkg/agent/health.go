// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	sidecarv1 "github.com/outrigger-mesh/outrigger/api/sidecar/v1"
)

// The defaults of a HealthCheck.
const (
	DefaultCheckInterval      = 2 * time.Second
	DefaultCheckTimeout       = time.Second
	DefaultUnhealthyThreshold = 3
	DefaultHealthyThreshold   = 1
)

// An application that has not answered yet is most likely starting: for so many
// tries, a minute's worth, it is tried more often.
const (
	startInterval = 100 * time.Millisecond
	startTries    = 600
)

// HealthCheck says how the application is checked. Zero fields mean the defaults.
type HealthCheck struct {
	// Path is asked for with GET, and an answer of 200 to 399 is healthy. Empty: a
	// TCP connection that opens is healthy.
	Path              string
	Interval, Timeout time.Duration
	// So many failures, or successes, in a row change the verdict. The first check
	// decides alone.
	UnhealthyThreshold, HealthyThreshold int
}

func (h *HealthCheck) validate() error {
	var faults []error
	if h.Path != "" && (h.Path[0] != '/' || strings.ContainsAny(h.Path, " \r\n#")) {
		faults = append(faults, fmt.Errorf("agent: health.path %q: want an absolute path", h.Path))
	}
	if h.Interval < 0 || h.Timeout < 0 || h.UnhealthyThreshold < 0 || h.HealthyThreshold < 0 {
		faults = append(faults, errors.New("agent: health: interval, timeout and thresholds must not be negative"))
	}
	return errors.Join(faults...)
}

// appHealth is a verdict on the application.
type appHealth struct {
	healthy bool
	reason  string // why not
	// objected: it answers, and others object.
	objected bool
}

func (h appHealth) wire() sidecarv1.Health {
	if h.healthy {
		return sidecarv1.Health_HEALTH_HEALTHY
	}
	return sidecarv1.Health_HEALTH_UNHEALTHY
}

// checker checks the application at an interval.
type checker struct {
	// Set once.
	app    string
	check  HealthCheck
	client *http.Client
	// objection of others; nil: there is none.
	objection func() error

	board *board
	log   *slog.Logger
	// changes holds the latest change that nobody has taken yet.
	changes chan appHealth
}

func newChecker(app string, h HealthCheck, b *board, log *slog.Logger) *checker {
	if h.Interval == 0 {
		h.Interval = DefaultCheckInterval
	}
	if h.Timeout == 0 {
		h.Timeout = DefaultCheckTimeout
	}
	if h.UnhealthyThreshold == 0 {
		h.UnhealthyThreshold = DefaultUnhealthyThreshold
	}
	if h.HealthyThreshold == 0 {
		h.HealthyThreshold = DefaultHealthyThreshold
	}
	return &checker{
		app: app, check: h, board: b, log: log, changes: make(chan appHealth, 1),
		client: &http.Client{
			// No proxy: the one in the environment is likely this sidecar.
			Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func (c *checker) run(ctx context.Context) {
	var (
		verdict, told   appHealth
		decided, seenUp bool
		streak          int
	)
	for try := 0; ; try++ {
		err := c.once(ctx)
		if ctx.Err() != nil {
			return
		}
		now := appHealth{healthy: err == nil}
		if err != nil {
			now.reason = err.Error()
		}
		if decided && now.healthy == verdict.healthy {
			streak = 0
		} else {
			streak++
		}
		threshold := c.check.UnhealthyThreshold
		if now.healthy {
			threshold = c.check.HealthyThreshold
		}
		first := !decided
		if first || streak >= threshold {
			decided, verdict, streak = true, now, 0
		}
		if joined := c.join(verdict); first || joined.healthy != told.healthy {
			told = joined
			c.announce(told)
		}
		seenUp = seenUp || now.healthy
		interval := c.check.Interval
		if !seenUp && try < startTries {
			interval = min(interval, startInterval)
		}
		if !pause(ctx, interval) {
			return
		}
	}
}

// join is the verdict with what others have found: a health check of the service's
// TrafficPolicy, which has thresholds of its own.
func (c *checker) join(h appHealth) appHealth {
	if !h.healthy || c.objection == nil {
		return h
	}
	if err := c.objection(); err != nil {
		return appHealth{reason: err.Error(), objected: true}
	}
	return h
}

// announce replaces a change that has not been taken; run is the only sender.
func (c *checker) announce(h appHealth) {
	c.board.setApp(h.healthy, h.reason)
	if h.healthy {
		c.log.Info("the application at " + c.app + " answers (--app)")
	} else {
		c.log.Warn(c.complaint(h))
	}
	select {
	case <-c.changes:
	default:
	}
	c.changes <- h
}

// complaint says what is wrong with the application, for who may have given a wrong
// address. What the reason repeats of the address is left out.
func (c *checker) complaint(h appHealth) string {
	reason := h.reason
	if h.objected {
		return "the application at " + c.app + " is not healthy: " + reason
	}
	if c.check.Path != "" {
		reason = strings.TrimPrefix(reason, fmt.Sprintf("Get %q: ", "http://"+c.app+c.check.Path))
		if strings.HasPrefix(reason, "GET ") {
			return "the application at " + c.app + " is not healthy (--app): " + reason
		}
	}
	for _, repeated := range []string{"dial tcp " + c.app + ": ", "dial tcp: ", "connect: "} {
		reason = strings.TrimPrefix(reason, repeated)
	}
	return "the application at " + c.app + " does not answer (--app): " + reason
}

// once checks the application one time.
func (c *checker) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.check.Timeout)
	defer cancel()
	if c.check.Path == "" {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", c.app)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.app+c.check.Path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", "outrigger-sidecar/health")
	answer, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	// A short body is read so that the application sees an orderly end.
	_, _ = io.CopyN(io.Discard, answer.Body, 4<<10)
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return fmt.Errorf("GET %s: status %d", c.check.Path, answer.StatusCode)
	}
	return nil
}
