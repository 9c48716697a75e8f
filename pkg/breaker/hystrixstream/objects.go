// SPDX-License-Identifier: Apache-2.0

package hystrixstream

import (
	"time"

	"github.com/outrigger-mesh/outrigger/pkg/breaker"
)

// The keys and their order are those of Netflix's HystrixMetricsPoller. A key
// that is missing shows as NaN in dashboards, so that what does not exist here is
// sent as zero or false.

type command struct {
	Type            string `json:"type"`
	Name            string `json:"name"`
	Group           string `json:"group"`
	CurrentTime     int64  `json:"currentTime"` // ms
	Open            bool   `json:"isCircuitBreakerOpen"`
	ErrorPercentage int    `json:"errorPercentage"`
	ErrorCount      uint64 `json:"errorCount"`
	RequestCount    uint64 `json:"requestCount"`

	BadRequests        uint64 `json:"rollingCountBadRequests"`
	CollapsedRequests  uint64 `json:"rollingCountCollapsedRequests"`
	Emit               uint64 `json:"rollingCountEmit"`
	ExceptionsThrown   uint64 `json:"rollingCountExceptionsThrown"`
	Failure            uint64 `json:"rollingCountFailure"`
	FallbackEmit       uint64 `json:"rollingCountFallbackEmit"`
	FallbackFailure    uint64 `json:"rollingCountFallbackFailure"`
	FallbackMissing    uint64 `json:"rollingCountFallbackMissing"`
	FallbackRejection  uint64 `json:"rollingCountFallbackRejection"`
	FallbackSuccess    uint64 `json:"rollingCountFallbackSuccess"`
	ResponsesFromCache uint64 `json:"rollingCountResponsesFromCache"`
	SemaphoreRejected  uint64 `json:"rollingCountSemaphoreRejected"`
	ShortCircuited     uint64 `json:"rollingCountShortCircuited"`
	Success            uint64 `json:"rollingCountSuccess"`
	ThreadPoolRejected uint64 `json:"rollingCountThreadPoolRejected"`
	Timeout            uint64 `json:"rollingCountTimeout"`

	Concurrent    uint32 `json:"currentConcurrentExecutionCount"`
	MaxConcurrent uint32 `json:"rollingMaxConcurrentExecutionCount"`

	LatencyExecuteMean uint64  `json:"latencyExecute_mean"`
	LatencyExecute     latency `json:"latencyExecute"`
	LatencyTotalMean   uint64  `json:"latencyTotal_mean"`
	LatencyTotal       latency `json:"latencyTotal"`

	VolumeThreshold      int     `json:"propertyValue_circuitBreakerRequestVolumeThreshold"`
	SleepWindowMillis    int64   `json:"propertyValue_circuitBreakerSleepWindowInMilliseconds"`
	ErrorThreshold       int     `json:"propertyValue_circuitBreakerErrorThresholdPercentage"`
	ForceOpen            bool    `json:"propertyValue_circuitBreakerForceOpen"`
	ForceClosed          bool    `json:"propertyValue_circuitBreakerForceClosed"`
	Enabled              bool    `json:"propertyValue_circuitBreakerEnabled"`
	IsolationStrategy    string  `json:"propertyValue_executionIsolationStrategy"`
	ThreadTimeoutMillis  int64   `json:"propertyValue_executionIsolationThreadTimeoutInMilliseconds"`
	TimeoutMillis        int64   `json:"propertyValue_executionTimeoutInMilliseconds"`
	InterruptOnTimeout   bool    `json:"propertyValue_executionIsolationThreadInterruptOnTimeout"`
	PoolKeyOverride      *string `json:"propertyValue_executionIsolationThreadPoolKeyOverride"`
	SemaphoreMax         uint32  `json:"propertyValue_executionIsolationSemaphoreMaxConcurrentRequests"`
	FallbackSemaphoreMax uint32  `json:"propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests"`
	StatisticalWindow    int64   `json:"propertyValue_metricsRollingStatisticalWindowInMilliseconds"`
	RequestCacheEnabled  bool    `json:"propertyValue_requestCacheEnabled"`
	RequestLogEnabled    bool    `json:"propertyValue_requestLogEnabled"`
	ReportingHosts       int     `json:"reportingHosts"`
	ThreadPool           string  `json:"threadPool"`
}

// latency is in milliseconds by percentile.
type latency struct {
	P0   uint64 `json:"0"`
	P25  uint64 `json:"25"`
	P50  uint64 `json:"50"`
	P75  uint64 `json:"75"`
	P90  uint64 `json:"90"`
	P95  uint64 `json:"95"`
	P99  uint64 `json:"99"`
	P995 uint64 `json:"99.5"`
	P100 uint64 `json:"100"`
}

type threadPool struct {
	Type               string `json:"type"`
	Name               string `json:"name"`
	CurrentTime        int64  `json:"currentTime"` // ms
	ActiveCount        uint32 `json:"currentActiveCount"`
	CompletedTaskCount uint64 `json:"currentCompletedTaskCount"`
	CorePoolSize       uint32 `json:"currentCorePoolSize"`
	LargestPoolSize    uint32 `json:"currentLargestPoolSize"`
	MaximumPoolSize    uint32 `json:"currentMaximumPoolSize"`
	PoolSize           uint32 `json:"currentPoolSize"`
	QueueSize          uint32 `json:"currentQueueSize"`
	TaskCount          uint64 `json:"currentTaskCount"`
	ThreadsExecuted    uint64 `json:"rollingCountThreadsExecuted"`
	MaxActiveThreads   uint32 `json:"rollingMaxActiveThreads"`
	CommandRejections  uint64 `json:"rollingCountCommandRejections"`
	QueueRejection     int    `json:"propertyValue_queueSizeRejectionThreshold"`
	StatisticalWindow  int64  `json:"propertyValue_metricsRollingStatisticalWindowInMilliseconds"`
	ReportingHosts     int    `json:"reportingHosts"`
}

func commandOf(m *breaker.Metrics, now time.Time) *command {
	r := &m.Rolling
	group := m.Group
	if group == "" {
		group = m.Name
	}
	return &command{
		Type: "HystrixCommand", Name: m.Name, Group: group, CurrentTime: now.UnixMilli(),
		Open: m.IsOpen(), ErrorPercentage: m.ErrorPercent, ErrorCount: m.Errors, RequestCount: m.Requests,

		BadRequests:       r[breaker.BadRequest],
		ExceptionsThrown:  thrown(m),
		Failure:           r[breaker.Failure] + r[breaker.ConnectFailure],
		FallbackFailure:   r[breaker.FallbackFailure],
		FallbackMissing:   r[breaker.FallbackMissing],
		FallbackRejection: r[breaker.FallbackRejection],
		FallbackSuccess:   r[breaker.FallbackSuccess],
		SemaphoreRejected: r[breaker.Rejected],
		ShortCircuited:    r[breaker.ShortCircuited],
		Success:           r[breaker.Success],
		Timeout:           r[breaker.Timeout],

		Concurrent: m.Active, MaxConcurrent: m.RollingActive,
		LatencyExecuteMean: millis(m.LatencyMean), LatencyExecute: latencyOf(m),
		LatencyTotalMean: millis(m.LatencyMean), LatencyTotal: latencyOf(m),

		VolumeThreshold:     m.Config.RequestVolumeThreshold,
		SleepWindowMillis:   m.Config.SleepWindow.Milliseconds(),
		ErrorThreshold:      m.Config.ErrorThresholdPercent,
		ForceOpen:           m.Config.ForceOpen,
		ForceClosed:         m.Config.ForceClosed,
		Enabled:             m.Config.Enabled,
		IsolationStrategy:   "SEMAPHORE", // nothing here has a thread of its own
		ThreadTimeoutMillis: m.TimeoutMillis,
		TimeoutMillis:       m.TimeoutMillis,
		SemaphoreMax:        m.MaxRequests,
		// Fallbacks answer at once and need no limit of their own.
		FallbackSemaphoreMax: m.MaxRequests,
		StatisticalWindow:    m.Config.Window.Milliseconds(),
		ReportingHosts:       1,
		ThreadPool:           m.Name,
	}
}

// thrown are the errors that the caller has seen: those without a fallback.
func thrown(m *breaker.Metrics) uint64 {
	failed := m.Errors + m.Rolling[breaker.ShortCircuited]
	return failed - min(m.Rolling[breaker.FallbackSuccess], failed) + m.Rolling[breaker.BadRequest]
}

func threadPoolOf(m *breaker.Metrics, now time.Time) *threadPool {
	executed := func(t *[breaker.Outcomes]uint64) uint64 {
		return t[breaker.Success] + t[breaker.Failure] + t[breaker.Timeout] + t[breaker.ConnectFailure] + t[breaker.BadRequest]
	}
	return &threadPool{
		Type: "HystrixThreadPool", Name: m.Name, CurrentTime: now.UnixMilli(),
		ActiveCount:        m.Active,
		CompletedTaskCount: executed(&m.Total),
		CorePoolSize:       m.MaxRequests,
		LargestPoolSize:    m.RollingActive,
		MaximumPoolSize:    m.MaxRequests,
		PoolSize:           m.Active,
		TaskCount:          executed(&m.Total) + uint64(m.Active),
		ThreadsExecuted:    executed(&m.Rolling),
		MaxActiveThreads:   m.RollingActive,
		CommandRejections:  m.Rolling[breaker.Rejected],
		StatisticalWindow:  m.Config.Window.Milliseconds(),
		ReportingHosts:     1,
	}
}

func latencyOf(m *breaker.Metrics) latency {
	p := &m.LatencyPercentiles // in the order of breaker.Percentiles
	return latency{
		millis(p[0]), millis(p[1]), millis(p[2]), millis(p[3]), millis(p[4]),
		millis(p[5]), millis(p[6]), millis(p[7]), millis(p[8]),
	}
}

// millis rounds microseconds.
func millis(micros uint64) uint64 { return (micros + 500) / 1000 }
