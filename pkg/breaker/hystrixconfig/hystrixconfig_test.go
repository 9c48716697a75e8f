// SPDX-License-Identifier: Apache-2.0

package hystrixconfig_test

import (
	"strings"
	"testing"
	"time"

	"github.com/afex/hystrix-go/hystrix"

	"github.com/outrigger-mesh/outrigger/pkg/breaker/hystrixconfig"
	"github.com/outrigger-mesh/outrigger/pkg/xds/resource"
)

func TestDefaultsAreHystrixs(t *testing.T) {
	hystrix.ConfigureCommand("defaults", hystrix.CommandConfig{})
	want, got := hystrix.GetCircuitSettings()["defaults"], hystrixconfig.Defaults()
	if got.ErrorThresholdPercent != want.ErrorPercentThreshold || got.SleepWindow != want.SleepWindow ||
		uint64(got.RequestVolumeThreshold) != want.RequestVolumeThreshold || !got.Enabled {
		t.Errorf("got %+v, hystrix-go has %+v", got, want)
	}
}

func TestSettingsComeBackAsTheyWere(t *testing.T) {
	in := hystrix.CommandConfig{
		Timeout: 700, MaxConcurrentRequests: 3, RequestVolumeThreshold: 4, SleepWindow: 50, ErrorPercentThreshold: 60,
	}
	out, err := hystrixconfig.Command(hystrixconfig.Breaker(in), 700*time.Millisecond, 3)
	if err != nil || out != in {
		t.Errorf("got %+v, %v, want %+v", out, err, in)
	}
}

func TestWhatHystrixCannotExpressIsNamed(t *testing.T) {
	_, err := hystrixconfig.Command(resource.CircuitBreaker{
		SleepWindow: time.Microsecond, Window: time.Second, Buckets: 3, ForceOpen: true, RequestVolumeThreshold: -1,
	}, 0, 0)
	if err == nil {
		t.Fatal("no error")
	}
	for _, field := range []string{
		"error_threshold_percent: 0", "request_volume_threshold: -1", "sleep_window: 1µs", "timeout: 0",
		"max_concurrent_requests: 0", "window: 1s", "buckets: 3", "force: true",
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %q:\n%v", field, err)
		}
	}
}
