// SPDX-License-Identifier: Apache-2.0

package main

import "regexp"

// row is one thing that somebody else could check.
type row struct {
	section string
	id      string
	what    string
	bar     string // what has to hold
	command string // run by bash in the top folder
	// figure finds what is shown of the output: the last group of every match. Nil:
	// the last figure that a test logged.
	figure *regexp.Regexp
}

func test(pattern string, packages string) string {
	return "go test -count=1 -v -run '" + pattern + "' " + packages
}

func peers(pattern string, packages string) string {
	return "OUTRIGGER_PEERS=1 " + test(pattern, packages)
}

const (
	suites   = "Suites and clients of others"
	data     = "Faults of the data path"
	control  = "Faults of the control plane"
	measures = "Measured"
)

var rows = []row{
	{suites, "harness", "go-control-plane's integration harness with `sidecar` in Envoy's place: ads, xds, rest, delta, delta-ads", "every listener answers through every version", "test/harness/run.sh", regexp.MustCompile(`(?m)^(\S+ +(?:pass|FAIL) +\d+)$`)},
	{suites, "envoy", "Envoy 1.40 as a client of the control plane", "traffic flows, an endpoint change arrives, a refusal is shown", peers("RealEnvoy", "./pkg/controlplane"), nil},
	{suites, "grpc-go", "grpc-go's `xds:///` client of the control plane", "calls flow and follow an endpoint change", peers("ProxylessGRPC", "./pkg/controlplane"), nil},
	{suites, "grpc", "grpc-go's interoperability client and server through two sidecars, all cases for plaintext and both soaks", "all pass", test("GRPCInterop", "./test/e2e"), nil},
	{suites, "connect", "connectrpc's conformance suite: Connect, gRPC and gRPC-Web over HTTP/1.1 and HTTP/2, cleartext and TLS; through one sidecar, two, and one that translates gRPC-Web", "each case ends as it does directly", "go run ./test/conformance/connect", regexp.MustCompile(`(?m)^(through .* cases pass, \d+ end otherwise)`)},
	{suites, "envoy-lb", "balancing compared with Envoy's, bounded loads of consistent hashing too", "the same hosts, the same shares", peers("Envoy", "./pkg/lb"), nil},
	{suites, "envoy-outlier", "sequences of answers, resets, timeouts and refused connections, by every detector of outlier detection, and the log of ejections, compared with Envoy's", "the same ejections, stats and lines, but for the difference listed", peers("OutliersAreEnvoys|LogOfEjections", "./test/e2e"), regexp.MustCompile(`(\d+ of \d+ sequences lead to .*)`)},
	{suites, "envoy-adaptive", "the adaptive concurrency limit, reached, compared with Envoy's", "the same answers and stats", peers("AdaptiveLimit", "./test/e2e"), nil},
	{suites, "details", "how failures are logged, compared with Envoy's log lines", "the same, but for the differences listed", peers("DetailsAreEnvoys", "./test/e2e"), nil},
	{suites, "envoy-dns", "STRICT_DNS and LOGICAL_DNS clusters compared with Envoy's: SERVFAIL, REFUSED, silence, NXDOMAIN, addresses that change", "the same endpoints, counted alike", peers("EndpointsFollowTheirNames", "./test/e2e"), nil},
	{suites, "envoy-aggregate", "aggregate clusters compared with Envoy's: members sound, half dead and dead, three in a row", "the same shares within 5 %", peers("AggregatesSpill", "./test/e2e"), nil},
	{suites, "envoy-stats", "stats of certificates (SDS), of filters by ECDS and of subscriptions (CDS, EDS, LDS, RDS, SRDS), with changes, refusals and lost sources, compared with Envoy's from the same files and streams", "the same names and values", peers("StatsOfCertificatesAndFilters|StatsOfSubscriptions", "./test/e2e"), nil},
	{suites, "envoy-admission", "rate limits by bucket, descriptor and route, faults by header, and refusals under pressure, compared with Envoy's from the same bootstrap", "the same answers, fields and stats", peers("AdmissionIsEnvoys", "./test/e2e"), nil},
	{suites, "envoy-health", "health checks by HTTP, gRPC and TCP from the same file as Envoy: a status of 503, a redirect, a hung instance, NOT_SERVING; flags of `/clusters` and the event log; the filter that answers health checks", "the same flags, events and answers, and no request to who is out", peers("HealthChecksAreEnvoys|FailsItsHealthCheckLeaves|FilterOfHealthChecks", "./test/e2e"), nil},
	{suites, "envoy-peer", "Envoy before and behind a sidecar: requests, WebSocket and CONNECT of HTTP/1.1 and HTTP/2 clients, by HTTP/1.1, HTTP/2, TLS, mutual TLS and PROXY v2; TCP", "every byte, every end", peers("EnvoyIsAPeer", "./test/interop"), nil},
	{suites, "autobahn", "the Autobahn Testsuite's WebSocket cases through one sidecar and through two that speak HTTP/2 (`OUTRIGGER_AUTOBAHN=all` for all 517)", "no case behaves worse than direct", peers("Autobahn", "./test/interop"), nil},
	{suites, "pyarrow", "the lake's files read by PyArrow", "every row and column", peers("PyArrow", "./pkg/lake"), nil},
	{suites, "rfc9111", "answers kept for fallbacks by RFC 9111's rules for shared caches: what is stored, when it may be used, stale or fresh, Vary, invalidation; bounds with two loops", "each case of the tables", test("SharedCache|AnswerIsUsed|ToldApart|NewerAnswer|Bounded|LastGoodAnswer", "./pkg/responsecache ./pkg/proxy"), nil},
	{suites, "hystrix-go", "hystrix-go's own circuit as the oracle of open and closed", "the same decisions, but for the deviations listed", test("Hystrix|MeantDeviations", "./pkg/breaker/hystrixoracle"), nil},
	{suites, "net/http", "HTTP/1.1 codec against net/http", "what both accept is framed alike", test("NetHTTP", "./pkg/codec/http1"), nil},
	{suites, "h2spec", "h2spec in strict mode against the `sidecar`, cleartext and TLS", "146 of 146 on both", peers("H2spec", "./test/attack"), regexp.MustCompile(`((?:cleartext|TLS): \d+ tests, .*)`)},
	{suites, "otel", "propagation against OpenTelemetry's propagators", "what one injects the other extracts", test("OpenTelemetry|SDKPicks", "./pkg/trace"), nil},
	{suites, "promtool", "Prometheus text against promtool's linter", "no complaint", test("Promtool", "./pkg/metrics ./pkg/proxy"), nil},
	{suites, "compose", "docker-compose.yml loaded by compose-go", "loads; every command line is understood", test(".", "./test/compose"), nil},

	{data, "smuggling", "each class of HTTP/1 request smuggling", "400 and close, however the bytes are cut", test("Smuggl|Ambiguous|SameFraming|UnreadBytes|BackendSeesExactly|BrokenChunks", "./pkg/codec/http1 ./test/attack"), nil},
	{data, "day", "24 virtual hours for each of four seeds: a proxy of up to three loops with settings that a seed draws (subsets, priorities, sessions, outlier detection, limits of filters, kept answers, hedges, tunnels, WebSockets, overload), clients and instances that do everything wrong, updates meanwhile (`OUTRIGGER_SIM_HOURS`, `OUTRIGGER_SIM_SEEDS`)", "each request ends once and in time, and comes only where it may; counters balance after every few steps; no limit is exceeded after any, shared ones to the token; WebSockets get whole frames; nothing is left", "OUTRIGGER_SIM_HOURS=24 OUTRIGGER_SIM_SEEDS=4 " + test("TestADayOf", "./pkg/proxy"), regexp.MustCompile(`(?m)day: (\d+ seeds, .*)$`)},
	{data, "upstreams", "hostile upstreams: broken, early, endless, mixed up responses", "an error of the proxy's own; nothing reaches another client", test("Upstream|Response|EarlyAnswer|SeenInAnother", "./test/attack"), nil},
	{data, "sessions", "encrypted session values: changed, made up, plain, expired, of other keys; roll-over by two keys, with processes", "no session, and none of them tells an address", test("EncryptedSession", "./pkg/filter/statefulsession ./test/e2e"), nil},
	{data, "session-keys", "sessions of a policy, with processes: two sidecars, a restart of the control plane, a roll-over of its keys; who is given keys, where they are shown", "a client stays at its instance; keys go to those who may have a certificate and are shown nowhere", test("KeysRollOver|BadFilesOfKeys|CannotBeKept|SecretsAreGiven|KeysOfASecret|PolicysSessions", "./pkg/controlplane/sessionkeys ./pkg/xds/server ./pkg/filter/statefulsession ./test/e2e"), nil},
	{data, "policy-words", "hedging and subsets as a mesh says them, with processes: an instance hangs; versions and labels, a subset without instances", "only what is idempotent is hedged; requests go to their subset, to its fallback or nowhere", test("PolicyHedges|LabelsOfABackend", "./test/e2e"), nil},
	{data, "headers", "what a client may not say: internal headers, odd paths, log lines", "removed, refused or escaped", test("Headers|Connection|Redirect|Spelling|LogLine", "./test/attack"), nil},
	{data, "kill", "an instance is killed under load", "no idempotent request fails; of POSTs only those in flight", test("KilledInstance|POSTs|InstanceThatLeaves", "./test/e2e"), nil},
	{data, "D1", "one of three instances killed under load: with its sidecar, its sidecar alone, the application alone; POSTs in flight", "no GET fails, of POSTs those in flight with 503 and a flag; ejected; no more memory", test("KilledInstance|POSTs", "./test/e2e"), nil},
	{data, "buckets", "requests and loops that take from one token bucket at once; its table of keys", "exactly what it holds, never more keys than allowed", test("LoopsTogether|NoMoreIsGiven|WorkersTogether|TableIsBounded|LoopsShare", "./pkg/ratelimit ./pkg/proxy"), nil},
	{data, "overload", "memory, connections or loops under pressure", "requests are refused, connections end or wait; all is as before when it is over", test("Pressure|Overload|Shed|ThanTheProcessMayHave", "./pkg/overload ./pkg/proxy"), nil},
	{data, "events", "an instance that answers 500 is ejected; ejections, circuits, panic mode, health, panics, pressure and drains", "told with the numbers at the decision at the sidecar (list, stream, log, command) and at the control plane, also after its restart", test("Told|OfHealthAre|Pressure|AnEjectionIsSeen|Tells", "./pkg/breaker ./pkg/proxy ./test/e2e"), nil},
	{data, "changes", "100 changes of listeners, routes, clusters and endpoints under 200 connections", "no failed request", test("HundredChanges", "./test/e2e"), nil},
	{data, "balancing", "every balancing policy: shares, health, panic, localities, retries; slow start, bounded loads, latency, load reports", "shares within statistical bounds, no allocation", test("Conform|SharesFollow|ShareLoad|ShareOne|ShareGrows|ShareOfA|Slow|Bound|Overflow|EWMA|Weights|Reports|PickFirst|FullScan|OneKey|Joins", "./pkg/lb ./pkg/proxy ./pkg/codec/orca"), nil},
	{data, "amplification", "a service behind three sidecars in a row, each of which retries three times, answers 500 to everything", "fewer than 1.25 calls of it for each request", test("DeadServiceBehindThree", "./test/e2e"), nil},
	{data, "going-away", "WebSockets in each pair of protocols whose drain time is over, between frames and within them", "a Close frame (1001) on both sides, never within a frame", test("WebSocketIsClosed|NoCloseFrame|FrameThatDoesNotEnd|FollowsACloseFrame|FramesAreFollowed|NoWebSocketIsNot", "./pkg/proxy"), nil},
	{data, "slow-responses", "responses that are slow on purpose, fixed and as requests ask", "their rate to the byte and the sixteenth of a second; bounded memory", test("SlowResponse", "./pkg/proxy"), nil},
	{data, "D2", "reset in the middle of a body", "never a clean end; retried only if idempotent and unanswered", test("TruncatedResponse|ResetBeforeTheResponse", "./pkg/proxy"), nil},
	{data, "resets", "streams of HTTP/2 that an endpoint resets, refuses or leaves out of its GOAWAY, of clients of HTTP/1.1 and HTTP/2", "Envoy 1.40's flags and details; what was refused is sent again or falls back whatever it is, the rest if it is idempotent, nothing once an answer has begun", test("StreamThatIsReset|StreamsThatAreReset|OneThatIsReset|RefusedStreamsAre|PeersHear", "./pkg/proxy"), nil},
	{data, "D3", "upstream half-closes", "the whole response, the connection is not used again", test("HalfCloseBehind", "./pkg/proxy"), nil},
	{data, "D5", "200 slow upstream readers and 200 slow client readers of 100 MB", "≤ 200 × 2 × 64 KiB × 1.5 more memory; others are served", test("SlowReaders", "./pkg/proxy ./test/e2e"), nil},
	{data, "grpc-stall", "readers of gRPC streams stall, of both directions", "senders are held up, memory is bounded, others are served, everything arrives afterwards", test("StalledReadersOfStreams", "./test/e2e"), nil},
	{data, "D6", "slowloris, slow bodies, slow reading", "timers end them; others are served", test("SlowClients|Trickling", "./pkg/proxy ./test/e2e ./test/attack"), nil},
	{data, "floods", "every flood of HTTP/2 and HPACK, cleartext and TLS, against the process", "ENHANCE_YOUR_CALM, counted, < 16 MiB more memory, no failed request of others", test("HTTP2Floods|CVE202627141|UpstreamsThatFlood", "./test/attack"), nil},
	{data, "stalls", "slow beginnings, blocks, bodies and readers of HTTP/2, over TLS and PROXY too", "ended in time, memory given back, others are served", test("SlowBeginnings|TricklesIn|SlowBodyOf|StalledReaders|StayShut", "./test/attack"), nil},
	{data, "bridging", "requests and responses of HTTP/2 that would be others in HTTP/1.1; protocols that were not agreed on", "the stream ends, the connection goes on, nothing gets through", test("OfHTTP2Becomes|SpeaksWhat", "./test/attack"), nil},
	{data, "D4", "clients and upstreams that are gone without a word: HTTP/2 (`connection_keepalive`), and packets to and from an instance dropped in network namespaces (root)", "found out by PING, or by the timeout (504) where there is none; new connections end with the connect timeout; what may is asked elsewhere", test("KeepAlivePING|BlackHole", "./test/attack ./test/e2e/intercept"), nil},
	{data, "D7", "requests split at every byte", "the same as unsplit", test("SplitAtEveryByte", "./pkg/proxy"), nil},
	{data, "D8", "an upstream of HTTP/2 with GOAWAY, MAX_CONCURRENT_STREAMS of 0 and 1, settings that change, floods", "streams above the last go elsewhere, others complete; no failed request", test("TestD8|UpstreamsThatFlood", "./test/attack"), nil},
	{data, "D9", "10 000 idle connections of HTTP/1.1 and of HTTP/2 that were each answered once (`OUTRIGGER_IDLE=18000` for more), at as many sidecars as the limit on open files asks for", "≤ 4 KiB each (HTTP/1.1), ≤ 12 KiB (HTTP/2) of PSS; < 5 % of a core; others are served, none is lost", "OUTRIGGER_IDLE=10000 " + test("IdleConnectionsCost", "./test/e2e"), nil},
	{data, "D10", "1 000 clients of a sidecar with 256 descriptors", "accepting pauses, < 10 % of a core; descriptors stay for admin, upstreams and xDS; recovers in < 1 s", test("Descriptors", "./pkg/reactor ./test/e2e ./cmd/sidecar"), nil},
	{data, "D11", "a sidecar in a control group of 128 MiB under streams of HTTP/2 that nobody reads (`OUTRIGGER_MEMORY_FOR=10m` for long)", "requests are refused, no kill, the admin port answers all the time, all is as before when it is over", "OUTRIGGER_MEMORY_FOR=30s " + test("TooLittleMemory", "./test/e2e"), nil},
	{data, "D12", "hostile connections of HTTP/2, one after the other and four at a time, beside clients that behave; the sidecar has a CPU of its own", "no failed request; p50 and p99 shown, no condition", test("TestD12", "./test/attack"), nil},
	{data, "D13", "panics in a filter's callbacks", "each ends its connection only and is counted; the 10th in 60 s fails readiness", test("PanicEnds|TenthPanic|TenPanics|PanicsOfReal", "./pkg/proxy ./pkg/admin"), nil},
	{data, "D14", "DNS: errors, silence, circles of aliases, forged ids and questions, garbled answers, 500 addresses, too long for a datagram, TTL 0; under load", "the last good endpoints stay, nothing goes to a forged address, no failed request; TCP where it is needed", test("HostileAnswersOfDNS|Aliases|LongAnswers|ThousandsOfNames", "./test/e2e ./pkg/dns ./pkg/dnscluster"), nil},
	{data, "D15", "the wall clock set by an hour and by a year, both ways (simulation); other monotonic times (time namespaces); a sidecar stopped for 2 s (`OUTRIGGER_SUSPEND_SECONDS=30` for longer)", "no timeout but those that are due; what was answered meanwhile is an answer; connections stay", test("JumpsOfTheWall|Standstill|SuspendedSidecar|AnyMonotonic", "./pkg/proxy ./test/e2e"), nil},
	{data, "D17", "SIGTERM with HTTP/1.1 idle and busy, HTTP/2, gRPC streams, WebSocket and TCP at once", "no failed request; idle connections end in order; streams and tunnels go on until the drain is nearly over", "OUTRIGGER_DRAIN_SECONDS=15 " + test("ADrainEndsEvery", "./test/e2e"), nil},
	{data, "drain-h2", "SIGTERM with clients of HTTP/2, cleartext and TLS", "GOAWAY in two steps; every stream sent before the second is answered", test("ADrainTakesTwo", "./test/attack"), nil},
	{data, "faults", "fifteen faults of instances, zones, connections, DNS, control plane, configuration and the proxy itself, each met by the sidecar and by Envoy with the same settings, under clients that never retry", "no request lost on redeploys, reloads and upgrades; never more than Envoy", "go run ./bench/faults --out ''", regexp.MustCompile(`(?m)^((?:sidecar|envoy): .* idle connections)`)},
	{data, "hot-upgrade", "22 upgrades in place of both sidecars of a call under 200 connections, half of which idle all through; successors that break", "no failed request, no idle connection lost; the old one serves on", "OUTRIGGER_UPGRADES=22 " + test("HotUpgrades|BrokenSuccessor|SIGUSR2Starts", "./test/e2e"), nil},
	{data, "D18", "20 upgrades in place of both sidecars of a call under load, to the same program or to another and back (`OUTRIGGER_OTHER_SIDECAR`); successors that crash before they are ready", "no failed request; every request is counted and no counter goes back; the old one serves on", "OUTRIGGER_UPGRADES=20 " + test("HotUpgrades|BrokenSuccessor", "./test/e2e"), nil},
	{data, "rolling", "every sidecar of the quickstart upgraded in place, then every instance with its sidecar replaced, at 2 000 requests/s of clients that never repeat one", "no failed request, and no fewer than 95 % of the rate are sent", "OUTRIGGER_ROLLING_RATE=2000 " + test("RollingRestart", "./examples/quickstart"), nil},
	{data, "D20", "100 000 clusters, 10 000 routes and a set of 1 000 endpoints by delta xDS, under load; then one of them changes", "in service in ≤ 30 s, ≤ 8 KiB for a cluster, a change costs less than a twentieth of the load, no failed request", "OUTRIGGER_CLUSTERS=100000 " + test("ManyClusters|ChangesLeave|RoundOfWhat", "./test/e2e ./pkg/proxy ./pkg/xds/client"), nil},
	{data, "D22", "faults at random for 15 s (`OUTRIGGER_SOAK=20m` for long): sidecars killed, ended, stopped, the control plane killed, changes, clients that break off", "no failed request; goroutines, descriptors and memory that is no file's, after it was given back, do not grow (of more than 10 min < 0.1 % a minute, from the 400th fault)", "OUTRIGGER_SOAK=15s " + test("ASoakWith", "./test/e2e"), nil},
	{data, "reload", "SIGHUP under load with a good, a bad and an unchangeable bootstrap; sockets, news and watchdog of systemd through an upgrade", "no failed request; what cannot change is named; the last good configuration stays", test("SIGHUPReloads|SystemdBinds", "./test/e2e"), nil},
	{data, "job", "`sidecar exec` with a command that ends while 8 MiB that it has sent are on their way; an application that ends together with its sidecar", "every byte arrives, the exit code is the command's; the outbound side stays open until the application has gone", test("AJobsLastBytes|OutboundSideStaysOpen", "./test/e2e ./cmd/sidecar"), nil},
	{data, "D21", "upgrade smuggling and CONNECT abuse over HTTP/1.1 and HTTP/2, from clients and upstreams", "no tunnel but an enabled one that the upstream agreed to; nothing ahead of that", test("CVE202423326|CVE20262833|CVE202564763|H2c|BytesOfATunnel|CONNECT|UpstreamOfHTTP2CannotSwitch|BudgetOfResets", "./test/attack"), nil},
	{data, "D16", "mutual TLS: certificates of 12 s renewed under load, a root rolled over, the control plane killed; bad certificates (`OUTRIGGER_ROTATIONS=75` for 5 min)", "no failed request, new handshakes use the new certificate; each bad one refused with its reason in the log and a metric", test("MutualTLSRotates|BadCertificates|NotWhoItShouldBe", "./test/e2e"), nil},
	{data, "mutual-tls", "plaintext into a strict listener, a permissive policy that ends, instances without an identity, also beside others that have one; gRPC over mutual TLS", "refused, counted, closed; all of grpc-go's cases", test("SpeakMutualTLS|PermissiveEnds|StrictMakes|DrawsNothingInTheClear|GRPCInteropOverMutualTLS", "./test/e2e"), nil},
	{data, "transport-change", "WebSocket and CONNECT tunnels, endless responses and TCP connections that are open when TLS comes, at the listener or at the cluster, in every protocol", "they go on for the drain time, then both sides are told, counted and logged; those that no change touches go on", test("MadeInAnotherWay|TunnelsInTheClear|WhenTLSComes|TLSWasGivenUp", "./pkg/proxy"), nil},
	{data, "D23", "interception in network namespaces, by nftables and iptables (root): a sidecar that the rules do not know; ORIGINAL_DST to self, loopback, metadata, IPv6; excluded ports and users; rules removed", "no connection comes back to the sidecar; link-local and metadata addresses end; exclusions are exact; no rule is left behind", test("NeverComesToTheSidecar|RulesIntercept|NeverToForbiddenPlaces|ArriveAtTheSidecar|OnlyTheDestinations|RemoveLeavesNoRule", "./test/e2e/intercept"), nil},
	{data, "protocols", "an intercepted application that knows names only: HTTP, gRPC, WebSocket, a server that speaks first, TLS passed through", "each comes to its destination, and nothing else does", test("EveryProtocolOfAnIntercepted", "./test/e2e/intercept"), nil},
	{data, "tcp-tap", "connections, and TLS that nobody opens, are tapped through two sidecars with mutual TLS", "the lake has peer, server name, addresses, bytes and the first of them without secrets; what cannot be redacted is refused", test("TappedConnectionsAreInTheLake|WatchedConnection|BytesOfConnections|BytesOfHTTP2", "./test/e2e ./pkg/proxy ./pkg/tap"), nil},
	{data, "http2-callers", "clients of HTTP/2 and instances that know HTTP/1.1 alone, gRPC alone or HTTP/2 alone, with a sidecar, without, and both in one service", "each request arrives by what the instance knows", test("CallerOfHTTP2|CallOfGRPCReaches|ServerOfHTTP2Alone", "./test/e2e"), nil},
	{data, "routes", "GRPCRoute, TCPRoute and TLSRoute through two sidecars: methods, weights, both sides first, half-close, server names", "each goes where its route says", test("MethodsOfGRPC|GoThroughBothSidecars|SplitByWeight|ByServerNameUnopened", "./test/e2e"), nil},
	{data, "D19", "100 changes a second of listeners, routes, clusters, endpoints", "no failed request; in service after ≤ 500 ms (p99, shown and no condition); memory back within 5 %", test("ConfigurationChangesUnderLoad|AStormOfChanges", "./pkg/proxy ./test/e2e"), nil},

	{control, "C1", "a sidecar starts without a control plane", "serves the last good configuration; without one it is not ready", test("RestartsWithoutControlPlane|NotReadyBefore", "./test/e2e"), nil},
	{control, "C2", "the control plane is killed under load and returns; an application dies meanwhile (`OUTRIGGER_AWAY=1h` for longer)", "no failed request, endpoints unchanged, the dead one ejected, `connected_state` 0 then 1, all catch up", test("SurvivesTheDeath|ControlPlaneIsAway", "./pkg/xds/client ./test/e2e"), nil},
	{control, "C4", "hostile configuration: unknown, dangling, empty, duplicate, cyclic, undecodable, oversized; state of the world and delta", "refused by name and field, the last good stays, the good part goes on; memory bounded; no failed request", test("BadResource|Dangling|Oversized|HostileManagement", "./pkg/xds/client ./test/e2e"), nil},
	{control, "C5", "a client that refuses in a loop", "slowed down on both sides", test("AnsweredInALoop|RefusesEverything", "./pkg/xds/client ./test/e2e"), nil},
	{control, "C7", "kill -9 and power failure before every write, sync, truncation and rename; torn and garbled tails; full and read-only disks (`OUTRIGGER_STORE_STEPS=500` for more)", "no acknowledged write is lost, every restart boots; reads go on, writes 507 or 503", test("EveryFileOperation|KilledProcess|KilledControlPlane|FullDisk|FullFolder|ReadOnlyDisk|Damaged|Corrupt|CannotBeWritten", "./pkg/controlplane/store ./test/e2e"), nil},
	{control, "bad-input", "broken objects and files, busy ports, a full or read-only lake, bad requests, a corrupt store", "a clear error that names the place; nothing crashes, nothing accepted is lost", test("BadObjects|BadFile|BusyPort|FullOrReadOnlyLake|BadRequests|Corrupt", "./test/e2e"), nil},
	{control, "fleet", "1 000 services × 10 instances, 200 sidecars, one endpoint change", "at all of them in under 200 ms, marshalled once", test("ReachesTheWholeFleet", "./pkg/controlplane"), nil},

	{measures, "quickstart", "all that the quickstart claims", "every line seen", "go run ./examples/quickstart -for 30s", regexp.MustCompile(`(all \d+ things were seen)`)},
	{measures, "alloc", "allocations per request in steady state", "0", test("(?i)alloc", "./pkg/codec/... ./pkg/proxy ./pkg/lb ./pkg/breaker ./pkg/trace ./pkg/record ./pkg/filter/..."), nil},
}
