// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
)

func runHealth(fail bool) func(*Server, *request) {
	return func(s *Server, r *request) {
		if !r.only() {
			return
		}
		s.unhealthy.Store(fail)
		if s.config.HealthCheck != nil {
			s.config.HealthCheck(fail)
		}
		s.log.Info("health check set by the admin port", "fail", fail)
		r.ok()
	}
}

func runDrain(s *Server, r *request) {
	if !r.only("graceful", "inboundonly", "skip_exit") {
		return
	}
	d := Drain{r.query.Has("graceful"), r.query.Has("inboundonly"), r.query.Has("skip_exit")}
	s.log.Info("draining, as the admin port was asked to", "graceful", d.Graceful, "inbound_only", d.InboundOnly, "skip_exit", d.SkipExit)
	s.config.Drain(d)
	r.ok()
}

// runQuit answers before it acts: who asked shall learn that it was heard.
func runQuit(s *Server, r *request) {
	if !r.only() {
		return
	}
	r.ResponseWriter.Header().Set("Connection", "close")
	r.ok()
	_ = http.NewResponseController(r.ResponseWriter).Flush() // it ends anyway
	s.log.Info("ending, as the admin port was asked to")
	s.config.Quit()
}

func runReopen(s *Server, r *request) {
	if !r.only() {
		return
	}
	s.config.ReopenLogs()
	r.ok()
}

// logger is the name of the one logger.
const logger = "outrigger"

// level is one of Envoy's names of log levels.
type level struct {
	name string
	at   slog.Level
}

// levels begin with the most verbose.
var levels = [...]level{
	{"trace", slog.LevelDebug - 4}, {"debug", slog.LevelDebug}, {"info", slog.LevelInfo}, {"warning", slog.LevelWarn},
	{"error", slog.LevelError}, {"critical", slog.LevelError + 4}, {"off", slog.Level(math.MaxInt32)},
}

func levelName(l slog.Level) string {
	name := levels[0].name
	for _, v := range levels {
		if l >= v.at {
			name = v.name
		}
	}
	return name
}

// runLogging shows the level, or sets it by level=LEVEL, outrigger=LEVEL or
// paths=outrigger:LEVEL.
func runLogging(s *Server, r *request) {
	value, given, err := loggingArgument(r)
	if err == nil && given {
		i := slices.IndexFunc(levels[:], func(l level) bool { return l.name == value })
		if i >= 0 {
			s.config.Level.Set(levels[i].at)
			s.log.Info("log level set by the admin port", "level", value)
		} else {
			err = fmt.Errorf("unknown logger level %q", value)
		}
	}
	list := "active loggers:\n  " + logger + ": " + levelName(s.config.Level.Level()) + "\n"
	if err == nil {
		r.text(list)
		return
	}
	var names []string
	for _, l := range levels {
		names = append(names, l.name)
	}
	r.fail(http.StatusBadRequest, "error: "+err.Error()+"\n\n"+
		"usage: /logging?level=<level> (change all levels)\n"+
		"usage: /logging?"+logger+"=<level> (change single level)\n"+
		"usage: /logging?paths="+logger+":<level> (change levels by name)\n"+
		"levels: "+strings.Join(names, " ")+"\n"+list)
}

func loggingArgument(r *request) (value string, given bool, err error) {
	if len(r.query) == 0 {
		return "", false, nil
	}
	if len(r.query) > 1 {
		return "", false, fmt.Errorf("want one parameter")
	}
	for name := range r.query {
		value = r.query.Get(name)
		switch name {
		case "level", logger:
			return value, value != "", nil
		case "paths":
			n, v, ok := strings.Cut(value, ":")
			if !ok || n != logger && n != "*" {
				return "", false, fmt.Errorf("unknown logger name %q", n)
			}
			return v, true, nil
		default:
			return "", false, fmt.Errorf("unknown logger name %q", name)
		}
	}
	return "", false, nil
}
