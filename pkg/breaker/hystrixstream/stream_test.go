// SPDX-License-Identifier: Apache-2.0

package hystrixstream_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	"go.uber.org/goleak"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
	"github.com/outrigger-mesh/outrigger/pkg/breaker/hystrixconfig"
	"github.com/outrigger-mesh/outrigger/pkg/breaker/hystrixstream"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // hystrix-go never ends these; there is one circuit of it here
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*metricExchange).Monitor"),
		goleak.IgnoreAnyFunction("github.com/afex/hystrix-go/hystrix.(*poolMetrics).Monitor"))
}

// serve starts a server and returns its address; it shuts down gracefully at the
// end of the test, within the deadline.
func serve(t *testing.T, h http.Handler, onShutdown func()) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	if onShutdown != nil {
		server.RegisterOnShutdown(onShutdown)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(l); err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
			_ = server.Close()
		}
		wg.Wait()
	})
	return "http://" + l.Addr().String()
}

// get opens a stream; the test's end closes it.
func get(t *testing.T, url string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// objects reads events until each type was seen and returns the last of each.
func objects(t *testing.T, body io.Reader) map[string]map[string]any {
	t.Helper()
	got := map[string]map[string]any{}
	lines := bufio.NewScanner(body)
	for len(got) < 2 && lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if !ok {
			continue
		}
		var o map[string]any
		if err := json.Unmarshal([]byte(data), &o); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		got[o["type"].(string)] = o
	}
	if len(got) < 2 {
		t.Fatalf("the stream ended (%v) with only %v", lines.Err(), got)
	}
	return got
}

func busyCircuit() breaker.Metrics {
	cfg := hystrixconfig.Defaults()
	cfg.RequestVolumeThreshold = 5
	c, l := breaker.NewCircuit("orders", &cfg), breaker.NewLimits(resource.Thresholds{MaxRequests: 100})
	c.Watch(l)
	l.TryRequest()
	n := breaker.Counts{
		Success: 4, Failure: 3, ConnectFailure: 2, Timeout: 1, Rejected: 2, ShortCircuited: 6,
		BadRequest: 7, FallbackSuccess: 8, FallbackFailure: 9,
	}
	for range 10 {
		n.Observe(int64(20 * time.Millisecond))
	}
	c.Flush(&n)
	now := int64(time.Hour)
	c.Tick(now)
	m := c.Metrics(now)
	m.TimeoutMillis = 15000
	return m
}

const commandKeys = `type name group currentTime isCircuitBreakerOpen errorPercentage errorCount requestCount
rollingCountBadRequests rollingCountCollapsedRequests rollingCountEmit rollingCountExceptionsThrown
rollingCountFailure rollingCountFallbackEmit rollingCountFallbackFailure rollingCountFallbackMissing
rollingCountFallbackRejection rollingCountFallbackSuccess rollingCountResponsesFromCache
rollingCountSemaphoreRejected rollingCountShortCircuited rollingCountSuccess rollingCountThreadPoolRejected
rollingCountTimeout currentConcurrentExecutionCount rollingMaxConcurrentExecutionCount
latencyExecute_mean latencyExecute latencyTotal_mean latencyTotal
propertyValue_circuitBreakerRequestVolumeThreshold propertyValue_circuitBreakerSleepWindowInMilliseconds
propertyValue_circuitBreakerErrorThresholdPercentage propertyValue_circuitBreakerForceOpen
propertyValue_circuitBreakerForceClosed propertyValue_circuitBreakerEnabled
propertyValue_executionIsolationStrategy propertyValue_executionIsolationThreadTimeoutInMilliseconds
propertyValue_executionTimeoutInMilliseconds propertyValue_executionIsolationThreadInterruptOnTimeout
propertyValue_executionIsolationThreadPoolKeyOverride
propertyValue_executionIsolationSemaphoreMaxConcurrentRequests
propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests
propertyValue_metricsRollingStatisticalWindowInMilliseconds propertyValue_requestCacheEnabled
propertyValue_requestLogEnabled reportingHosts threadPool`

const poolKeys = `type name currentTime currentActiveCount currentCompletedTaskCount currentCorePoolSize
currentLargestPoolSize currentMaximumPoolSize currentPoolSize currentQueueSize currentTaskCount
rollingCountThreadsExecuted rollingMaxActiveThreads rollingCountCommandRejections
propertyValue_queueSizeRejectionThreshold propertyValue_metricsRollingStatisticalWindowInMilliseconds reportingHosts`

func keysOf(o map[string]any) []string {
	var keys []string
	for k := range o {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func TestObjectsHaveAllKeysAndTheCircuitsNumbers(t *testing.T) {
	s := hystrixstream.Handler(func() []breaker.Metrics { return []breaker.Metrics{busyCircuit()} })
	resp := get(t, serve(t, s, s.Close))
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream;charset=UTF-8" {
		t.Errorf("content type %q", got)
	}
	got := objects(t, resp.Body)
	for typ, keys := range map[string]string{"HystrixCommand": commandKeys, "HystrixThreadPool": poolKeys} {
		want := strings.Fields(keys)
		slices.Sort(want)
		if have := keysOf(got[typ]); !slices.Equal(have, want) {
			t.Errorf("%s has the keys\n%v, want\n%v", typ, have, want)
		}
	}
	command := got["HystrixCommand"]
	for key, want := range map[string]any{
		"name": "orders", "group": "orders", "isCircuitBreakerOpen": true,
		"requestCount": 12., "errorCount": 8., "errorPercentage": 67.,
		"rollingCountSuccess": 4., "rollingCountFailure": 5., "rollingCountTimeout": 1.,
		"rollingCountSemaphoreRejected": 2., "rollingCountShortCircuited": 6., "rollingCountBadRequests": 7.,
		"rollingCountFallbackSuccess": 8., "rollingCountFallbackFailure": 9., "rollingCountExceptionsThrown": 13.,
		"currentConcurrentExecutionCount": 1., "latencyExecute_mean": 20.,
		"propertyValue_circuitBreakerRequestVolumeThreshold":          5.,
		"propertyValue_circuitBreakerSleepWindowInMilliseconds":       5000.,
		"propertyValue_executionTimeoutInMilliseconds":                15000.,
		"propertyValue_metricsRollingStatisticalWindowInMilliseconds": 10000.,
	} {
		if command[key] != want {
			t.Errorf("%s is %v, want %v", key, command[key], want)
		}
	}
	if got := keysOf(command["latencyTotal"].(map[string]any)); fmt.Sprint(got) != "[0 100 25 50 75 90 95 99 99.5]" {
		t.Errorf("percentiles %v", got)
	}
}

func TestHystrixGosOwnStreamHasNoKeyThatOursLacks(t *testing.T) {
	if _, _, err := hystrix.GetCircuit("own"); err != nil {
		t.Fatal(err)
	}
	theirs := hystrix.NewStreamHandler()
	theirs.Start()
	t.Cleanup(theirs.Stop)
	want := objects(t, get(t, serve(t, theirs, nil)).Body)
	s := hystrixstream.Handler(func() []breaker.Metrics { return []breaker.Metrics{busyCircuit()} })
	got := objects(t, get(t, serve(t, s, s.Close)).Body)
	for typ, o := range want {
		if len(o) == 0 {
			t.Fatalf("%s is empty", typ)
		}
		for key, v := range o {
			if have, ok := got[typ][key]; !ok {
				t.Errorf("%s lacks %s", typ, key)
			} else if key != "propertyValue_executionIsolationThreadPoolKeyOverride" && // null by default, as in Netflix's
				fmt.Sprintf("%T", have) != fmt.Sprintf("%T", v) {
				t.Errorf("%s: %s is a %T, there a %T", typ, key, have, v)
			}
		}
	}
}

func TestWithoutCircuitsThereArePings(t *testing.T) {
	s := hystrixstream.Handler(func() []breaker.Metrics { return nil })
	resp := get(t, serve(t, s, s.Close)+"?delay=10")
	b := make([]byte, len("ping: \n\n")*3)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "ping: \n\nping: \n\nping: \n\n" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestTheSixthClientIsRefusedUntilOneLeaves(t *testing.T) {
	s := hystrixstream.Handler(func() []breaker.Metrics { return nil })
	url := serve(t, s, s.Close) + "?delay=10"
	var open []*http.Response
	for range hystrixstream.MaxConnections {
		resp := get(t, url)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d", resp.StatusCode)
		}
		open = append(open, resp)
	}
	if resp := get(t, url); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the sixth client got %d, want 503", resp.StatusCode)
	}
	_ = open[0].Body.Close()
	deadline := time.Now().Add(5 * time.Second)
	for get(t, url).StatusCode != http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("a place that became free is not given away")
		}
	}
}

func TestCloseEndsStreamsAndRefusesNewOnes(t *testing.T) {
	s := hystrixstream.Handler(func() []breaker.Metrics { return nil })
	url := serve(t, s, nil)
	resp := get(t, url+"?delay=3600000")
	s.Close()
	s.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "ping: \n\n" {
		t.Errorf("the stream ended with %q, %v", b, err)
	}
	if got := get(t, url).StatusCode; got != http.StatusServiceUnavailable {
		t.Errorf("a new client got %d, want 503", got)
	}
}

func TestBadRequestsAreNamed(t *testing.T) {
	var asked atomic.Bool
	s := hystrixstream.Handler(func() []breaker.Metrics { asked.Store(true); return nil })
	url := serve(t, s, s.Close)
	for _, delay := range []string{"x", "-1", "1.5", "99999999999999999999"} {
		resp := get(t, url+"?delay="+delay)
		body, _ := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("delay: %q is no number of milliseconds\n", delay); resp.StatusCode != 400 || string(body) != want {
			t.Errorf("delay %s: %d %q, want 400 %q", delay, resp.StatusCode, body, want)
		}
	}
	resp, err := http.Post(url, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST got %d, want 405", resp.StatusCode)
	}
	if asked.Load() {
		t.Error("a bad request read the circuits")
	}
}
