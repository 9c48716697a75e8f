// SPDX-License-Identifier: Apache-2.0

// Package hystrixconfig translates between hystrix-go's settings and ours: names,
// meanings and defaults are Hystrix's. hystrix-go itself guards commands of the
// control plane; in the sidecar nothing calls it.
package hystrixconfig

import (
	"errors"
	"fmt"
	"time"

	"github.com/afex/hystrix-go/hystrix"

	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

// What hystrix-go cannot be told.
const (
	Window  = 10 * time.Second
	Buckets = 10
)

// Defaults is an enabled circuit with hystrix-go's defaults. Server errors,
// timeouts, failed connections and resets count as errors.
func Defaults() resource.CircuitBreaker { return Breaker(hystrix.CommandConfig{}) }

// Breaker is the circuit that a command's configuration describes; as in
// hystrix-go, zero means the default. Timeout and concurrency are no part of a
// circuit.
func Breaker(c hystrix.CommandConfig) resource.CircuitBreaker {
	return resource.CircuitBreaker{
		Enabled:                true,
		ErrorThresholdPercent:  orDefault(c.ErrorPercentThreshold, hystrix.DefaultErrorPercentThreshold),
		RequestVolumeThreshold: orDefault(c.RequestVolumeThreshold, hystrix.DefaultVolumeThreshold),
		SleepWindow:            time.Duration(orDefault(c.SleepWindow, hystrix.DefaultSleepWindow)) * time.Millisecond,
		Window:                 Window,
		Buckets:                Buckets,
		Count5xx:               true,
		CountTimeout:           true,
		CountConnectFailure:    true,
		CountReset:             true,
	}
}

// Command is the configuration with which hystrix-go decides as the circuit does.
// The error lists everything that it cannot express, by field.
func Command(cb resource.CircuitBreaker, timeout time.Duration, maxConcurrent int) (hystrix.CommandConfig, error) {
	var errs []error
	wrong := func(field, why string, value any) {
		errs = append(errs, fmt.Errorf("%s: %v: %s", field, value, why))
	}
	for _, f := range []struct {
		field string
		value int64
	}{
		{"error_threshold_percent", int64(cb.ErrorThresholdPercent)},
		{"request_volume_threshold", int64(cb.RequestVolumeThreshold)},
		{"sleep_window", int64(cb.SleepWindow)},
		{"timeout", int64(timeout)},
		{"max_concurrent_requests", int64(maxConcurrent)},
	} {
		if f.value == 0 {
			wrong(f.field, "zero means the default to hystrix-go", f.value)
		}
		if f.value < 0 {
			wrong(f.field, "must not be negative", f.value)
		}
	}
	for field, d := range map[string]time.Duration{"sleep_window": cb.SleepWindow, "timeout": timeout} {
		if d%time.Millisecond != 0 {
			wrong(field, "must be whole milliseconds", d)
		}
	}
	if cb.Window != Window {
		wrong("window", fmt.Sprint("must be ", Window), cb.Window)
	}
	if cb.Buckets != Buckets {
		wrong("buckets", fmt.Sprint("must be ", Buckets), cb.Buckets)
	}
	if cb.ForceOpen || cb.ForceClosed {
		wrong("force", "hystrix-go cannot be forced", true)
	}
	return hystrix.CommandConfig{
		Timeout:                int(timeout.Milliseconds()),
		MaxConcurrentRequests:  maxConcurrent,
		RequestVolumeThreshold: cb.RequestVolumeThreshold,
		SleepWindow:            int(cb.SleepWindow.Milliseconds()),
		ErrorPercentThreshold:  cb.ErrorThresholdPercent,
	}, errors.Join(errs...)
}

func orDefault(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}
