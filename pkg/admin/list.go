// SPDX-License-Identifier: Apache-2.0

package admin

import "net/http"

var (
	formatParam = param{"format", "text (default) or json"}
	filterParam = param{"filter", "only names that match this regular expression (RE2, anywhere in the name)"}
	usedParam   = param{"usedonly", "only what is not zero"}
)

// commandList is every path that this server has.
func (s *Server) commandList() []*command {
	list := []*command{
		{path: "/", help: "this page", run: runHome},
		{path: "/help", help: "print the admin commands", run: runHelp},
		{path: "/ready", help: "print the state; 200 if LIVE, else 503", run: runReady},
		{path: "/server_info", help: "print version, state and command line options", run: runServerInfo},
		{path: "/stats", help: "print all numbers", heavy: true, run: runStats, params: []param{
			{"format", "text (default), json or prometheus"}, filterParam, usedParam,
			{"type", "only Counters, Gauges, Histograms or TextReadouts (versions, as texts)"},
			{"histogram_buckets", "none (default, quantiles), cumulative or disjoint"},
		}},
		{path: "/stats/prometheus", help: "print all numbers in Prometheus' text format", heavy: true, run: runPrometheus, params: []param{filterParam, usedParam}},
		{path: "/clusters", help: "print clusters with their endpoints", heavy: true, run: runClusters, params: []param{formatParam, {"filter", "only clusters whose names match this regular expression"}}},
		{path: "/listeners", help: "print listeners with their addresses", run: runListeners, params: []param{formatParam}},
		{path: "/certs", help: "print certificates", run: runCerts},
		{path: "/memory", help: "print the use of memory", run: runMemory},
		{path: "/runtime", help: "print runtime values", run: runRuntime},
		{path: "/hot_restart_version", help: "print the version of hot restart", run: runHotRestart},
		{path: "/init_dump", help: "print what initialization waits for", run: runInitDump},
		{path: "/contention", help: "print contention of locks, if profiling is on", heavy: true, run: runContention},
		{path: "/healthcheck/fail", help: "make health checks of this proxy fail", post: true, run: runHealth(true)},
		{path: "/healthcheck/ok", help: "let health checks of this proxy pass again", post: true, run: runHealth(false)},
		{path: "/reset_counters", help: "make counters count from zero", post: true, heavy: true, run: runResetCounters},
		{path: "/cpuprofiler", help: "start a CPU profile, or stop and print it; needs profiling", post: true, run: runCPUProfiler, params: []param{{"enable", "y or n"}}},
		{path: "/heapprofiler", help: "print a heap profile; needs profiling", post: true, heavy: true, run: runHeapProfiler, params: []param{{"enable", "y or n; n prints nothing"}}},
		{path: "/heap_dump", help: "print a heap profile; needs profiling", heavy: true, run: runHeapDump},
	}
	add := func(exists bool, c *command) {
		if exists {
			list = append(list, c)
		}
	}
	c := &s.config
	// Without the flag the path exists to say which flag is missing.
	add(!c.AllowTap || c.Tap != nil, &command{path: "/tap", help: "print traffic as it passes; needs --admin-tap", post: true, stream: true, run: runTap})
	add(c.Dump != nil, &command{path: "/config_dump", help: "print the configuration", heavy: true, run: runConfigDump, params: []param{
		{"resource", "only the resources of this list, for example dynamic_listeners"},
		{"mask", "only these fields, comma separated; with resource of each of them"},
		{"name_regex", "only resources whose names match this regular expression"},
		{"include_eds", "with endpoints"},
	}})
	add(c.Hystrix != nil, &command{path: "/hystrix.stream", help: "stream the circuits for Hystrix dashboards", stream: true, run: runHystrix, params: []param{{"delay", "milliseconds between two events"}}})
	add(c.Events != nil, &command{path: "/events", help: "print what the sidecar has decided, with the numbers; a stream for who accepts text/event-stream", stream: true, run: runEvents, params: eventParams})
	add(c.Level != nil, &command{path: "/logging", help: "print or change the log level", post: true, run: runLogging, params: []param{{"level", "trace, debug, info, warning, error, critical or off"}}})
	add(c.Drain != nil, &command{path: "/drain_listeners", help: "drain listeners", post: true, run: runDrain, params: []param{
		{"graceful", "let connections end before the listeners close"},
		{"inboundonly", "only inbound listeners"},
		{"skip_exit", "drain connections but keep the listeners"},
	}})
	add(c.Quit != nil, &command{path: "/quitquitquit", help: "end the process in order", post: true, run: runQuit})
	add(c.ReopenLogs != nil, &command{path: "/reopen_logs", help: "open access logs anew, after they were rotated", post: true, run: runReopen})
	return list
}

func runHystrix(s *Server, r *request) { s.config.Hystrix.ServeHTTP(r.ResponseWriter, r.Request) }

func runTap(s *Server, r *request) {
	if !s.config.AllowTap {
		r.fail(http.StatusForbidden, "tapping shows bodies of traffic and is off; start the sidecar with --admin-tap to allow it")
		return
	}
	s.config.Tap.ServeHTTP(r.ResponseWriter, r.Request)
}
